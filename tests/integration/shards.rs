//! Sharded scoring by several processes, and the merge of their results.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use rgby::graph::tensor::set_values;
use rgby::graph::{ModelProto, NodeProto, TensorProto};
use serde_json::Value;

use crate::support::{
    Run, assert_refused, finish, must, ort_library, read, records, rgby, run, skipped, tiny_model,
    tiny_model_with_embeddings, workplace, write_model, write_sample,
};

pub const SCORE: &str = "score --model model.onnx --images images --engine tract";

/// Creates a folder with [`tiny_model_with_embeddings`] and `count` samples, two of them broken.
pub fn plate(count: u8) -> tempfile::TempDir {
    let dir = workplace();
    write_model(
        &dir.path().join("model.onnx"),
        &tiny_model_with_embeddings(),
    );
    let images = dir.path().join("images");
    for id in 0..count {
        write_sample(&images, &format!("s{id:03}"), [id, 255 - id, id / 2, 7]);
    }
    for id in [3, count - 2] {
        fs::write(images.join(format!("s{id:03}_blue.png")), "no image").unwrap();
    }
    dir
}

/// Returns the bytes of the three results `name`, their manifests, and the list of failed samples.
pub fn results(dir: &Path, name: &str, extension: &str) -> Vec<Vec<u8>> {
    let names = ["o", "p", "e"].map(|kind| format!("{name}.{kind}.{extension}"));
    let manifests = names.clone().map(|name| format!("{name}.manifest.json"));
    let errors = format!("{name}.o.errors.csv");
    let files = names.into_iter().chain(manifests).chain([errors]);
    files
        .map(|file| fs::read(dir.join(file)).unwrap())
        .collect()
}

/// Writes predictions, probabilities and embeddings to `name.o`, `name.p` and `name.e`.
pub fn score_all(dir: &Path, name: &str, extension: &str, more: &str) -> Run {
    let out = |kind| format!("{name}.{kind}.{extension}");
    let (o, p, e) = (out("o"), out("p"), out("e"));
    run(
        dir,
        &format!("{SCORE} --out {o} --scores {p} --embeddings {e} {more}"),
    )
}

/// Merges the three results of all `parts` to those of `name`.
pub fn merge_all(dir: &Path, parts: &[String], name: &str, extension: &str, more: &str) {
    for kind in ["o", "p", "e"] {
        let file = |name: &String| format!("{name}.{kind}.{extension}");
        let parts: Vec<String> = parts.iter().map(file).collect();
        let merged = run(
            dir,
            &format!(
                "merge {} --out {name}.{kind}.{extension} {more}",
                parts.join(" ")
            ),
        );
        assert_eq!(merged.code, Some(1), "{merged:?}");
        assert!(merged.stderr.contains("2 of"), "{merged:?}");
    }
}

#[test]
fn merged_shards_are_byte_identical_to_one_run() {
    let dir = plate(40);
    let path = dir.path();
    let mut ids: Vec<String> = (0..40).map(|id| format!("s{:03}", id * 7 % 40)).collect();
    // An id without images.
    ids.push("nothing".into());
    fs::write(path.join("ids.csv"), format!("Id\n{}\n", ids.join("\n"))).unwrap();
    for extension in ["csv", "parquet"] {
        let whole = score_all(path, "whole", extension, "");
        assert_eq!(whole.code, Some(1), "{whole:?}");
        // Some of the 19 shards are empty. `19/19` is the same shard as `0/19`.
        let mut parts = Vec::new();
        let mut seen = BTreeSet::new();
        for shard in 1..=19 {
            let name = format!("part{shard}");
            let part = score_all(
                path,
                &name,
                extension,
                &format!("--shard {shard}/19 --json"),
            );
            let report: Value = serde_json::from_str(&part.stdout).unwrap();
            assert_eq!(report["shard"], format!("{}/19", shard % 19));
            seen.insert(report["samples"].as_u64().unwrap());
            assert!(part.stderr.contains(" of 40 samples"), "{part:?}");
            parts.push(name);
        }
        assert!(seen.contains(&0) && seen.len() > 2, "{seen:?}");
        merge_all(path, &parts, "merged", extension, "");
        assert!(results(path, "whole", extension) == results(path, "merged", extension));
    }
    // In the order of `--ids`, which contains an id without images.
    assert_eq!(
        score_all(path, "listed", "csv", "--ids ids.csv").code,
        Some(1)
    );
    let parts: Vec<String> = (0..3).map(|shard| format!("third{shard}")).collect();
    for (shard, name) in parts.iter().enumerate() {
        let more = format!("--ids ids.csv --shard {shard}/3");
        assert!(matches!(
            score_all(path, name, "csv", &more).code,
            Some(0 | 1)
        ));
    }
    for kind in ["o", "p", "e"] {
        let parts: Vec<_> = parts
            .iter()
            .map(|part| format!("{part}.{kind}.csv"))
            .collect();
        let parts = parts.join(" ");
        let merged = run(
            path,
            &format!("merge {parts} --ids ids.csv --out again.{kind}.csv"),
        );
        assert_eq!(merged.code, Some(1), "{merged:?}");
    }
    assert!(results(path, "listed", "csv") == results(path, "again", "csv"));
}

/// Returns [`tiny_model`] with two convolutions and a dense layer of pseudo-random weights.
fn conv_model() -> ModelProto {
    let mut model = tiny_model();
    let graph = model.graph.as_mut().unwrap();
    let layers = [
        ("Conv", "image", "w1"),
        ("Relu", "1", ""),
        ("Conv", "2", "w2"),
        ("Relu", "3", ""),
        ("GlobalAveragePool", "4", ""),
        ("Flatten", "5", ""),
        ("Gemm", "6", "w3"),
        ("Sigmoid", "7", ""),
    ];
    graph.node.clear();
    for (number, (op, input, weights)) in layers.into_iter().enumerate() {
        let inputs = [input, weights].into_iter().filter(|name| !name.is_empty());
        let mut node = NodeProto::new();
        node.op_type = op.into();
        node.input = inputs.map(str::to_owned).collect();
        node.output.push((number + 1).to_string());
        graph.node.push(node);
    }
    graph.node[7].output[0] = "probabilities".into();
    let mut state = 1_u32;
    for (name, dims) in [
        ("w1", vec![24, 4, 3, 3]),
        ("w2", vec![40, 24, 3, 3]),
        ("w3", vec![40, 28]),
    ] {
        let count = dims.iter().product::<i64>();
        let random = |_| {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            (f64::from(state) / f64::from(u32::MAX) - 0.5) as f32 / 2.0
        };
        let values: Vec<f32> = (0..count).map(random).collect();
        let mut tensor = TensorProto::new();
        tensor.name = name.into();
        tensor.dims = dims;
        set_values(&mut tensor, &values);
        graph.initializer.push(tensor);
    }
    model
}

#[test]
fn probabilities_do_not_depend_on_the_batch_size() {
    let dir = workplace();
    let path = dir.path();
    write_model(&path.join("model.onnx"), &conv_model());
    must(path, "synth --out set --count 17 --size 32");
    let mut engines = vec!["tract"];
    match ort_library() {
        Some(_) => engines.push("onnxruntime"),
        None => skipped("no ONNX Runtime: neither ORT_DYLIB_PATH nor a Python package"),
    }
    for engine in engines {
        let mut seen = BTreeSet::new();
        for batch in [1, 2, 3, 5, 8, 16] {
            let args = format!(
                "score --model model.onnx --images set/images --engine {engine} --batch {batch} \
                 --out o.csv --scores p.csv"
            );
            let library = ort_library().filter(|_| engine == "onnxruntime");
            let library = library.map(|path| format!("--ort-lib {}", path.display()));
            must(path, &format!("{args} {}", library.unwrap_or_default()));
            seen.insert(read(path, "p.csv"));
        }
        assert_eq!(seen.len(), 1, "{engine}");
        let rows: BTreeSet<Vec<String>> = records(path, "p.csv").into_iter().collect();
        assert_eq!(rows.len(), 17);
    }
}

#[test]
fn shard_comes_from_the_scheduler_only_if_requested() {
    let dir = plate(12);
    let path = dir.path();
    let score = |more: &str, variables: &[(&str, &str)]| {
        let args = format!("{SCORE} --out out.csv --failed-ok {more}");
        let mut command = rgby();
        command
            .args(args.split_whitespace())
            .envs(variables.iter().copied());
        let scored = finish(command.current_dir(path));
        assert_eq!(scored.code, Some(0), "{scored:?}");
        (scored.stderr, read(path, "out.csv"))
    };
    let (stderr, whole) = score("", &[("SLURM_ARRAY_TASK_ID", "1")]);
    assert_eq!(whole.lines().count(), 13);
    let is_hint =
        |line: &&str| line.contains("SLURM_ARRAY_TASK_ID") && line.contains("--shard auto");
    assert_eq!(stderr.lines().filter(is_hint).count(), 1, "{stderr}");
    let (stderr, _) = score("--shard 1/2", &[]);
    assert!(stderr.contains("shard 1/2: "), "{stderr}");
    let explicit = read(path, "out.csv");
    assert!(explicit.lines().count() < 13);
    let (stderr, kubernetes) = score("--shards 2", &[("JOB_COMPLETION_INDEX", "1")]);
    assert!(
        stderr.contains("shard 1/2, by JOB_COMPLETION_INDEX: "),
        "{stderr}"
    );
    let slurm = [("ID", "1"), ("MIN", "1"), ("MAX", "2"), ("COUNT", "2")];
    let slurm = slurm.map(|(name, value)| (format!("SLURM_ARRAY_TASK_{name}"), value));
    let slurm: Vec<(&str, &str)> = slurm
        .iter()
        .map(|(name, value)| (&**name, *value))
        .collect();
    let (stderr, slurm) = score("--shard auto", &slurm);
    assert!(
        stderr.contains("shard 1/2, by SLURM_ARRAY_TASK_ID: "),
        "{stderr}"
    );
    assert!(explicit == kubernetes && explicit == slurm);
}

#[test]
fn finished_shards_are_not_scored_again() {
    let dir = plate(12);
    let path = dir.path();
    let first = score_all(path, "a", "csv", "--resume --shard 0/2");
    assert!(matches!(first.code, Some(0 | 1)), "{first:?}");
    let before = files_in(path);
    let again = score_all(path, "a", "csv", "--resume --shard 0/2 --json");
    assert_eq!(again.code, first.code, "{again:?}");
    assert!(again.stderr.contains("scored already"), "{again:?}");
    let report: Value = serde_json::from_str(&again.stdout).unwrap();
    assert_eq!(report["resumed_at"], report["samples"]);
    assert!(before == files_in(path));
    // With `--resume`, another shard or other options do not overwrite the result.
    for (more, expected) in [
        ("--shard 1/2", "--shard: 0/2 in that run, 1/2 now"),
        ("--shard 0/3", "--shard: 0/2 in that run, 0/3 now"),
        ("", "--shard: 0/2 in that run, none now"),
        ("--shard 0/2 --batch 3", "--batch: 8 in that run, 3 now"),
        ("--shard 0/2 --threshold 0.3", "--threshold: "),
    ] {
        let refused = score_all(path, "a", "csv", &format!("--resume {more}"));
        assert_eq!(refused.code, Some(2), "{refused:?}");
        assert!(
            refused.stderr.contains("a finished result (shard 0/2) of"),
            "{refused:?}"
        );
        assert!(refused.stderr.contains(expected), "{expected}: {refused:?}");
    }
    assert!(before == files_in(path));
    // A file that differs from its manifest is written again.
    fs::write(path.join("a.p.csv"), "Id\n").unwrap();
    let rewritten = score_all(path, "a", "csv", "--resume --shard 0/2");
    assert_eq!(rewritten.code, first.code, "{rewritten:?}");
    assert!(before == files_in(path));
    let over = score_all(path, "a", "csv", "--shard 1/2");
    assert!(matches!(over.code, Some(0 | 1)), "{over:?}");
    assert!(before != files_in(path));
}

#[test]
fn unfinished_shards_are_not_resumed_as_other_shards() {
    let dir = plate(12);
    let path = dir.path();
    let score = format!("{SCORE} --out a.csv --batch 1 --part-size 1");
    let stopped = run(path, &format!("{score} --shard 1/1 --max-errors 0"));
    assert_eq!(stopped.code, Some(2), "{stopped:?}");
    assert!(path.join("a.csv.parts/manifest.json").exists());
    let other = format!("{score} --shard 1/2 --resume");
    let none = format!("{score} --resume");
    let difference = &["a.csv.parts", "--shard: 0/1 in the unfinished run, "];
    assert_refused(path, &[(&other, difference), (&none, difference)]);
    let ended = run(path, &format!("{score} --shard 0/1 --resume"));
    assert_eq!(ended.code, Some(1), "{ended:?}");
}

/// Returns the path and content of each file directly in `dir`, sorted by path.
fn files_in(dir: &Path) -> Vec<(PathBuf, Vec<u8>)> {
    let files = fs::read_dir(dir)
        .unwrap()
        .map(|entry| entry.unwrap().path());
    let mut files: Vec<PathBuf> = files.filter(|path| path.is_file()).collect();
    files.sort();
    let read = |path: PathBuf| (path.clone(), fs::read(&path).unwrap());
    files.into_iter().map(read).collect()
}
