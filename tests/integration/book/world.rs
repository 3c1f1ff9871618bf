//! A temporary folder with the files and programs that the commands of the pages use.

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;

use image::GrayImage;
use rgby::graph::{Message, ModelProto};
use rgby::imaging::CHANNELS;
use rgby::labels::hpa_classes;
use rgby::model::{Arch, random_export};
use tempfile::TempDir;

use super::root;
use crate::cli_plates::tiff;
use crate::support::{change_spec, read, tiny_model};

/// Side of the images in pixels.
const SIDE: u32 = 32;
/// Overrides that reduce a training command to one step.
const CUT: &str = "--set train.epochs=1 --set train.steps_per_epoch=1 --set train.batch_size=2 \
                   --set train.validation_steps=1";

/// The folder, with stand-ins for programs that tests do not need.
pub struct World {
    dir: TempDir,
}

impl World {
    /// Creates the folder for the commands of `page`.
    pub fn new(page: &str) -> Self {
        let world = Self {
            dir: tempfile::tempdir().unwrap(),
        };
        world.programs();
        world.folders(page);
        world.lists();
        world.models(page);
        world
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn write(&self, name: &str, content: impl AsRef<[u8]>) {
        let path = self.path(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, content).unwrap();
    }

    /// Writes wrappers in `bin/`: rgby, which trains for one step only, at a small input size
    /// unless a pixel cache defines another, and stand-ins for other programs.
    fn programs(&self) {
        let real = env!("CARGO_BIN_EXE_rgby");
        let rgby = format!(
            "case $1 in train|retrain)\n\
             case \"$*\" in *--cache*) ;; *) set -- \"$@\" --set model.input_size=32;; esac\n\
             set -- \"$@\" {CUT};; esac\nexec '{real}' \"$@\""
        );
        // Replaces onnx/export.py, which needs PyTorch and downloads weights.
        let python = "while [ $# -gt 0 ]; do case $1 in --out) out=$2;; --arch) arch=$2;; esac; \
                      shift; done\ncp \"exported-$arch.onnx\" \"$out\"";
        let numactl = "while [[ $1 == --* ]]; do shift; done\nexec \"$@\"";
        let programs = [("rgby", &*rgby), ("python", python), ("numactl", numactl)];
        for (name, script) in programs.into_iter().chain([("man", "cat >/dev/null")]) {
            let name = format!("bin/{name}");
            self.write(&name, format!("#!/usr/bin/env bash\nset -eu\n{script}\n"));
            fs::set_permissions(self.path(&name), fs::Permissions::from_mode(0o755)).unwrap();
        }
        symlink(root().join("configs"), self.path("configs")).unwrap();
        for folder in ["bash-completion/completions", "man/man1"] {
            fs::create_dir_all(self.path(".local/share").join(folder)).unwrap();
        }
        fs::create_dir_all(self.path(".config/fish/completions")).unwrap();
    }

    /// Writes images, all different.
    fn folders(&self, page: &str) {
        let stains = |folder: &str, ids: &[String]| {
            for id in ids {
                for stain in CHANNELS {
                    self.image(&format!("{folder}/{id}_{stain}.png"));
                }
            }
        };
        stains("train", &ids('a', 12));
        stains("test", &ids('t', 3));
        stains("valid", &ids('v', 6));
        stains("images", &ids('i', 3));
        stains("many", &ids('m', 8));
        if page != "docs/plates.md" {
            stains("plate", &ids('v', 6));
            return;
        }
        let pages: Vec<GrayImage> = (0..4).map(|number| gray(&number.to_string())).collect();
        self.write("plate/A01.tif", tiff(&pages, ""));
        for channel in 1..=4 {
            self.image(&format!("opera/r01c02f03p01-ch{channel}sk1fk1fl1.tiff"));
            self.image(&format!("opera/r01c02f03p02-ch{channel}sk1fk1fl1.tiff"));
            self.image(&format!("imagexpress/plate7_A01_s1_w{channel}.tif"));
            self.image(&format!("imagexpress/plate7_A01_s1_w{channel}_thumb.tif"));
            let plane = format!("T0001F001L01A01Z01C0{channel}.tif");
            self.image(&format!("cellvoyager/AssayPlate_C02_{plane}"));
        }
        for (stain, name) in CHANNELS.iter().zip(["Cy5", "GFP", "DAPI", "Cy3"]) {
            self.image(&format!("atlas/1/7_A1_1_{stain}.jpg"));
            self.image(&format!("stains/A01_{name}.tif"));
        }
    }

    fn image(&self, name: &str) {
        let path = self.path(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        gray(name).save(path).unwrap();
    }

    /// Writes labels, probabilities, class names and an image manifest.
    fn lists(&self) {
        self.write("train.csv", labels(&ids('a', 12)));
        for name in ["valid.csv", "labels.csv"] {
            self.write(name, labels(&ids('v', 6)));
        }
        let submission = ids('t', 3).into_iter().rev();
        let submission = submission.map(|id| format!("\n{id},0"));
        let submission = format!("Id,Predicted{}\n", submission.collect::<String>());
        self.write("sample_submission.csv", submission);
        for (seed, name) in ["probabilities", "p", "old", "new"].iter().enumerate() {
            self.write(&format!("{name}.csv"), scores(&ids('v', 6), seed));
        }
        self.write("scores.npy", numpy(6, 28));
        let names = hpa_classes().join("\"\n\"");
        self.write("classes.csv", format!("Name\n\"{names}\"\n"));
        let stains = ["dna", "er", "rna", "agp", "mito"];
        let mut manifest = format!("Id,{}\n", stains.join(","));
        for id in ids('v', 6) {
            let files = stains.map(|stain| format!("cells/{id}-{stain}.png"));
            for file in &files {
                self.image(file);
            }
            manifest += &format!("{id},{}\n", files.join(","));
        }
        self.write("plate.csv", manifest);
    }

    /// Writes untrained models, and exports with random weights.
    fn models(&self, page: &str) {
        let write = |name: &str, model: &ModelProto| {
            self.write(name, model.write_to_bytes().unwrap());
        };
        write("model.onnx", &tiny_model());
        // The files of an ensemble must differ.
        for (name, threshold) in [("a", 0.4), ("b", 0.5), ("c", 0.6)] {
            let mut model = tiny_model();
            change_spec(&mut model, |spec| spec.thresholds[0] = threshold);
            write(&format!("{name}.onnx"), &model);
        }
        let mut bare = tiny_model();
        bare.metadata_props.clear();
        write("tiny.onnx", &bare);
        let classes = hpa_classes();
        let spec = format!("classes = {classes:?}\nchannels = {CHANNELS:?}\nsize = 8\n");
        self.write("tiny.toml", spec);
        let exports: &[(&str, Arch)] = match page {
            "README.md" | "docs/quick-start.md" => &[("exported-resnet50", Arch::ResNet50)],
            "docs/pretrained.md" => &[
                ("exported-resnet50", Arch::ResNet50),
                ("resnet50_v1", Arch::ResNet50V1),
            ],
            "docs/commands.md" => &[
                ("resnet50", Arch::ResNet50),
                ("densenet121", Arch::DenseNet121),
            ],
            _ => &[],
        };
        for (name, arch) in exports {
            write(&format!("{name}.onnx"), &random_export(*arch, 1).unwrap());
        }
        if page == "docs/commands.md" {
            let score = "rgby score --model model.onnx --images test --shard $i/2";
            let out = "--out parts/$i.csv --scores scores/$i.parquet";
            self.run(&format!(
                "mkdir parts scores; for i in 0 1; do {score} {out}; done"
            ));
        }
    }

    /// Runs a Bash script in the folder and asserts exit code 0.
    pub fn run(&self, script: &str) {
        let path = std::env::var("PATH").unwrap();
        let path = format!("{}:{path}", self.path("bin").display());
        let output = Command::new("bash")
            .args(["-euo", "pipefail", "-c", script])
            .current_dir(self.dir.path())
            .env("PATH", path)
            .env("HOME", self.dir.path())
            .env("XDG_RUNTIME_DIR", std::env::temp_dir())
            .output()
            .unwrap();
        let stderr = String::from_utf8_lossy(&output.stderr);
        let code = output.status.code();
        assert_eq!(code, Some(0), "{script}\n{stderr}");
    }

    /// Returns the content of a file in the folder.
    pub fn read(&self, name: &str) -> String {
        read(Path::new(self.dir.path()), name)
    }
}

fn ids(letter: char, count: usize) -> Vec<String> {
    (0..count)
        .map(|number| format!("{letter}{number}"))
        .collect()
}

/// Returns an image that depends only on `name`.
fn gray(name: &str) -> GrayImage {
    let seed = name.bytes().fold(7_u32, |seed, byte| {
        seed.wrapping_mul(31).wrapping_add(u32::from(byte))
    });
    GrayImage::from_fn(SIDE, SIDE, |x, y| {
        let mixed = (seed ^ (x * 7919 + y * 104_729)).wrapping_mul(2_654_435_761);
        image::Luma([(mixed >> 24) as u8])
    })
}

/// Returns a labels file in which each class occurs.
fn labels(ids: &[String]) -> String {
    let line = |(number, id): (usize, &String)| {
        let classes = (0..28).filter(|class| class % 3 == number % 3);
        let classes: Vec<String> = classes.map(|class| class.to_string()).collect();
        format!("{id},{}\n", classes.join(" "))
    };
    let lines = ids.iter().enumerate().map(line);
    format!("Id,Target\n{}", lines.collect::<String>())
}

/// Returns a file of probabilities; different seeds give different values.
fn scores(ids: &[String], seed: usize) -> String {
    let classes: Vec<String> = (0..28).map(|class| class.to_string()).collect();
    let mut text = format!("Id,{}\n", classes.join(","));
    for (number, id) in ids.iter().enumerate() {
        let row = (0..28).map(|class| (number * 37 + class * 11 + seed * 5) % 100);
        let row: Vec<String> = row.map(|hundredths| format!("0.{hundredths:02}")).collect();
        text += &format!("{id},{}\n", row.join(","));
    }
    text
}

/// Returns a `.npy` file with a float32 array `[rows, columns]`.
fn numpy(rows: usize, columns: usize) -> Vec<u8> {
    let header =
        format!("{{'descr': '<f4', 'fortran_order': False, 'shape': ({rows}, {columns}), }}");
    let header = format!("{header:<117}\n");
    let mut bytes = b"\x93NUMPY\x01\x00".to_vec();
    bytes.extend((header.len() as u16).to_le_bytes());
    bytes.extend(header.as_bytes());
    let values = (0..rows * columns).map(|number| (number % 89) as f32 / 89.0);
    bytes.extend(values.flat_map(f32::to_le_bytes));
    bytes
}
