//! Layouts of plates: results are byte-identical for every image format and naming scheme.

use std::fs;
use std::io::Cursor;
use std::path::Path;

use image::GrayImage;
use rgby::imaging::CHANNELS;
use tempfile::TempDir;
use tiff::encoder::{TiffEncoder, colortype::Gray8};
use tiff::tags::Tag;

use crate::support::{Run, assert_refused, read, records, run, workplace};

const IDS: [&str; 3] = ["a", "b_1", "c"];
const SCORE: &str = "score --model model.onnx --engine tract";

/// Returns a multi-page TIFF. The first page has the description.
pub fn tiff(pages: &[GrayImage], description: &str) -> Vec<u8> {
    let mut bytes = Cursor::new(Vec::new());
    let mut encoder = TiffEncoder::new(&mut bytes).unwrap();
    for (number, page) in pages.iter().enumerate() {
        let (width, height) = page.dimensions();
        let mut image = encoder.new_image::<Gray8>(width, height).unwrap();
        if number == 0 && !description.is_empty() {
            let directory = image.encoder();
            directory
                .write_tag(Tag::ImageDescription, description)
                .unwrap();
        }
        image.write_data(page.as_raw()).unwrap();
    }
    bytes.into_inner()
}

/// Returns OME-XML for 8-bit pages of this size, one for each channel name.
fn ome(size: (u32, u32), names: &[&str]) -> String {
    let channel = |name: &&str| format!("<Channel Name=\"{name}\" SamplesPerPixel=\"1\"/>");
    let channels: String = names.iter().map(channel).collect();
    format!(
        "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\
         <OME xmlns=\"http://www.openmicroscopy.org/Schemas/OME/2016-06\"><Image ID=\"Image:0\">\
         <Pixels ID=\"Pixels:0\" DimensionOrder=\"XYCZT\" Type=\"uint8\" SizeX=\"{}\" \
         SizeY=\"{}\" SizeC=\"{}\" SizeZ=\"1\" SizeT=\"1\">{channels}<TiffData/></Pixels></Image>\
         </OME>",
        size.0,
        size.1,
        names.len()
    )
}

/// Writes the samples of `images` in all other layouts: OME-TIFF in `ome`, TIFF pages in reverse
/// order and without names in `pages`, other file names in `wells`, and two manifests.
fn write_layouts(dir: &Path, ids: &[&str]) {
    let (mut csv, mut whole) = ("Id,red,green,blue,yellow\n".to_owned(), String::new());
    for name in ["ome", "pages", "wells/A01"] {
        fs::create_dir_all(dir.join(name)).unwrap();
    }
    for id in ids {
        let file = |stain: &str| dir.join(format!("images/{id}_{stain}.png"));
        let plane = |stain: &&str| image::open(file(stain)).unwrap().to_luma8();
        let mut planes: Vec<GrayImage> = CHANNELS.iter().map(plane).collect();
        let names = ["Red", "green", "BLUE", "Yellow"];
        let ome = tiff(&planes, &ome(planes[0].dimensions(), &names));
        fs::write(dir.join(format!("ome/{id}.ome.tif")), ome).unwrap();
        for (number, stain) in CHANNELS.iter().enumerate() {
            let name = format!("wells/A01/p_{id}_w{number}.PNG");
            fs::copy(file(stain), dir.join(name)).unwrap();
        }
        planes.reverse();
        fs::write(dir.join(format!("pages/{id}.tif")), tiff(&planes, "")).unwrap();
        let images = |stain: &str| format!("images/{id}_{stain}.png");
        csv += &format!(
            "{id},{},ome/{id}.ome.tif#GREEN,pages/{id}.tif#1,{}\n",
            images("red"),
            images("yellow")
        );
        whole += &format!("\n{id}{}", format!(",ome/{id}.ome.tif#{{}}").repeat(4));
        for name in names {
            whole = whole.replacen("{}", name, 1);
        }
    }
    fs::write(dir.join("mixed.csv"), csv).unwrap();
    fs::write(dir.join("whole.csv"), format!("Id,r,g,b,y{whole}\n")).unwrap();
}

/// Creates a folder with three samples of different pixels in every layout.
fn plates() -> TempDir {
    let dir = workplace();
    for (number, id) in IDS.iter().enumerate() {
        for (stain, name) in CHANNELS.iter().enumerate() {
            let gray = |x: u32, y: u32| {
                image::Luma([(x * 23 + y * 31 + (number * 60 + stain * 40) as u32) as u8])
            };
            let path = dir.path().join(format!("images/{id}_{name}.png"));
            GrayImage::from_fn(13, 9, gray).save(path).unwrap();
        }
    }
    write_layouts(dir.path(), &IDS);
    dir
}

fn score(dir: &Path, images: &str, out: &str) -> Run {
    let args = format!("{SCORE} --images {images} --out {out}.csv --scores {out}.scores.csv");
    run(dir, &args)
}

/// All layouts except the first, with the options that read them.
const LAYOUTS: [&str; 6] = [
    "ome",
    "ome --channel red=0 --channel green=Green",
    "pages --channel red=3 --channel green=2 --channel blue=1 --channel yellow=0",
    "wells --pattern .*/p_(?<id>.+)_w(?<channel>\\d)\\.PNG --channel red=0 --channel green=1 \
     --channel blue=2 --channel yellow=3",
    "mixed.csv",
    "whole.csv --channel red=r --channel green=g --channel blue=b --channel yellow=y",
];

#[test]
fn all_layouts_score_byte_identically() {
    let dir = plates();
    let dir = dir.path();
    let files = score(dir, "images", "files");
    assert_eq!(files.code, Some(0), "{files:?}");
    let expected = (read(dir, "files.csv"), read(dir, "files.scores.csv"));
    assert_eq!(expected.0.lines().count(), 4);
    for layout in LAYOUTS {
        let run = score(dir, layout, "other");
        assert_eq!(run.code, Some(0), "{layout}: {run:?}");
        let found = (read(dir, "other.csv"), read(dir, "other.scores.csv"));
        assert_eq!(found, expected, "{layout}");
    }
}

#[test]
fn eval_reads_every_layout() {
    let dir = plates();
    let dir = dir.path();
    fs::write(dir.join("labels.csv"), "Id,Target\nb_1,0 1\na,2\nc,\n").unwrap();
    let eval = |images: &str| {
        let args = "eval --model model.onnx --engine tract --labels labels.csv --json --images";
        run(dir, &format!("{args} {images}"))
    };
    let expected = eval("images");
    assert_eq!(expected.code, Some(0), "{expected:?}");
    for layout in LAYOUTS {
        assert_eq!(eval(layout).stdout, expected.stdout, "{layout}");
    }
}

#[test]
fn broken_files_are_listed_and_the_others_scored() {
    let dir = plates();
    let dir = dir.path();
    let page = || GrayImage::new(13, 9);
    let file = |id: &str| dir.join(format!("ome/{id}.ome.tif"));
    // Five channels in the description but four pages; no channel yellow; a truncated file.
    let too_many = ome((13, 9), &["red", "green", "blue", "yellow", "more"]);
    fs::write(
        file("liar"),
        tiff(&[page(), page(), page(), page()], &too_many),
    )
    .unwrap();
    let three = ome((13, 9), &["red", "green", "blue"]);
    fs::write(file("three"), tiff(&[page(), page(), page()], &three)).unwrap();
    let whole = fs::read(file("c")).unwrap();
    fs::write(file("cut"), &whole[..whole.len() / 2]).unwrap();
    let run = score(dir, "ome", "out");
    assert_eq!(run.code, Some(1), "{run:?}");
    let errors = records(dir, "out.errors.csv");
    for (record, expected) in errors.iter().zip([
        ("cut", "truncated or damaged"),
        ("liar", "has SizeC 5, but the file has 4"),
        (
            "three",
            "no channel `yellow`; its channels are 0 `red`, 1 `green`, 2 `blue`",
        ),
    ]) {
        assert_eq!(record[0], expected.0);
        assert!(record[1].ends_with(".ome.tif"), "{record:?}");
        assert!(record[2].contains(expected.1), "{record:?}");
    }
    assert_eq!(errors.len(), 3);
    // Missing files and empty cells of a manifest also fail only their samples.
    let mut csv = read(dir, "mixed.csv");
    csv += "d,images/none.png,,,\ne,,,,\n";
    fs::write(dir.join("more.csv"), csv).unwrap();
    let run = score(dir, "more.csv", "out");
    assert_eq!(run.code, Some(1), "{run:?}");
    let errors = records(dir, "out.errors.csv");
    assert_eq!(errors.len(), 2, "{errors:?}");
    assert!(errors[0][1].ends_with("none.png") && errors[0][2].contains("cannot be read"));
    assert_eq!(records(dir, "out.csv").len(), 5);
}

#[test]
fn options_that_fit_no_sample_are_errors() {
    let dir = plates();
    let out = |images: &str| format!("{SCORE} --images {images} --out out.csv");
    assert_refused(
        dir.path(),
        &[
            (
                &out("pages"),
                &[
                    "a.tif has no channel `red`",
                    "0 without a name",
                    "--channel red=0",
                ],
            ),
            (
                &out("ome --channel red=DAPI"),
                &["no channel `DAPI`", "0 `Red`, 1 `green`"],
            ),
            (
                &out("ome --channel violet=0"),
                &["unknown stain `violet`", "red, green, blue, yellow"],
            ),
            (
                &out("ome --channel red=0 --channel red=1"),
                &["--channel red=… is given twice"],
            ),
            (&out("ome --channel red"), &["use STAIN=CHANNEL"]),
            (
                &out("images --channel red=0"),
                &["no TIFF files", "--pattern"],
            ),
            (&out("images --pattern .*"), &["no named group"]),
            (
                &out("images --pattern (?<id>x)"),
                &["none of the 12 files", "`a_blue.png`"],
            ),
            (
                &out("images --pattern (?<id>.*)"),
                &["a_blue.png", "(?<channel>…)"],
            ),
            (
                &out("mixed.csv --pattern (?<id>.*)"),
                &["is a manifest", "omit --pattern"],
            ),
            (&out("mixed.csv --channel red=w1"), &["no column `w1`"]),
            (&out("none.csv"), &["none.csv: cannot be read"]),
            (
                "eval --scores a.csv --labels b.csv --channel red=0",
                &["--images"],
            ),
        ],
    );
}

#[test]
fn runs_resume_only_with_the_same_channels() {
    let dir = plates();
    let dir = dir.path();
    // The last sample fails, so the run stops with two samples in its parts.
    fs::write(dir.join("ome/c.ome.tif"), "").unwrap();
    let args = "--max-errors 0 --part-size 1 --batch 1 --resume";
    let run = |channels: &str| score(dir, &format!("ome {channels} {args}"), "out");
    let stopped = run("--channel red=0");
    assert_eq!(stopped.code, Some(2), "{stopped:?}");
    assert!(stopped.stderr.contains("are kept beside"), "{stopped:?}");
    for other in ["", "--channel red=1"] {
        let refused = run(other);
        assert_eq!(refused.code, Some(2), "{refused:?}");
        let began = ["resuming after", "kept beside"];
        let began = began.iter().any(|text| refused.stderr.contains(text));
        assert!(!began, "{refused:?}");
    }
    let again = run("--channel red=0");
    assert!(again.stderr.contains("resuming after"), "{again:?}");
}

#[cfg(feature = "train")]
#[test]
fn training_and_cache_read_every_layout() {
    use crate::support::must;
    use crate::train_support::{assert_same, workplace};

    let dir = workplace(12, "0,25");
    let dir = dir.path();
    let labels = "--labels data/labels.csv";
    let train = "train --config baseline.toml --set train.steps_per_epoch=3";
    must(
        dir,
        &format!("{train} --images data/images {labels} --out files"),
    );
    let cache = format!("cache {labels} --size 32");
    must(
        dir,
        &format!("{cache} --images data/images --out files.cache"),
    );
    fs::rename(dir.join("data/images"), dir.join("images")).unwrap();
    let text = read(dir, "data/labels.csv");
    let ids = text
        .lines()
        .skip(1)
        .filter_map(|line| line.split(',').next());
    write_layouts(dir, &ids.collect::<Vec<_>>());
    for (number, layout) in LAYOUTS.iter().enumerate() {
        let out = format!("run{number}");
        must(dir, &format!("{cache} --images {layout} --out {out}.cache"));
        let bytes = |name: &str| fs::read(dir.join(name)).unwrap();
        assert!(
            bytes("files.cache") == bytes(&format!("{out}.cache")),
            "{layout}"
        );
        if number < 3 {
            must(
                dir,
                &format!("{train} --images {layout} {labels} --out {out}"),
            );
            assert_same(dir, "files", &out);
        }
    }
    must(
        dir,
        "bench --preprocess --images ome --steps 1 --input-size 32",
    );
    let pages = "retrain --from files --config baseline.toml --images pages --out again";
    assert_refused(
        dir,
        &[(&format!("{pages} {labels}"), &["no channel `red`"])],
    );
}
