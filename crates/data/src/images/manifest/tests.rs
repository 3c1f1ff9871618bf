use std::fs;
use std::sync::Arc;

use arrow_array::{ArrayRef, Int64Array, LargeStringArray, RecordBatch, StringArray};
use parquet::arrow::ArrowWriter;
use tempfile::TempDir;

use crate::Images;
use crate::images::tests::{find, images, shown};
use rgby_imaging::{ChannelSelector, DecodeLimits, SampleErrorKind, read_sample};

fn manifest(name: &str, bytes: &[u8]) -> (TempDir, Images) {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join(name);
    fs::write(&path, bytes).unwrap();
    (dir, Images::plain(path))
}

#[test]
fn reads_files_and_channel_selectors_of_each_sample() {
    let text = "\u{feff}note,red,Id,GREEN\n\
                ,b/1.png, b ,/else/b.tif#2\n\
                x,plate.ome.tif#ER 2,a,plate.ome.tif\n\
                ,no.png#1,c,\n";
    let (dir, listed) = manifest("m.CSV", text.as_bytes());
    let samples = find(&listed, &["red", "green"]).unwrap();
    assert_eq!(
        shown(dir.path(), &samples),
        [
            "a plate.ome.tif plate.ome.tif",
            "b b/1.png /else/b.tif",
            "c no.png#1 -"
        ]
    );
    assert_eq!(
        *samples[0].picks,
        [
            ChannelSelector::Channel("ER 2".into()),
            ChannelSelector::WholeFile
        ]
    );
    assert_eq!(
        *samples[1].picks,
        [
            ChannelSelector::WholeFile,
            ChannelSelector::Channel("2".into())
        ]
    );
    assert_eq!(
        *samples[2].picks,
        [ChannelSelector::WholeFile, ChannelSelector::WholeFile]
    );
    // A missing file is an error of its sample only.
    let error = read_sample(&samples[1], &DecodeLimits::default()).unwrap_err();
    assert!(matches!(error.kind, SampleErrorKind::Io(_)) && error.file.ends_with("b/1.png"));
    fs::write(dir.path().join("no.png#1"), "").unwrap();
    let mut lacking = samples[2].clone();
    lacking.files.swap(0, 1);
    let error = read_sample(&lacking, &DecodeLimits::default()).unwrap_err();
    assert_eq!(
        error.to_string(),
        "sample `c`: there is no file for channel red"
    );
    let mut renamed = listed.clone();
    renamed.layout.channels.insert("dna".into(), "red".into());
    assert_eq!(find(&renamed, &["dna"]).unwrap().len(), 3);
}

#[test]
fn rejects_invalid_manifests_with_the_reason() {
    let many = format!("Id,red\na,{}\n", "x".repeat(5000));
    for (text, expected) in [
        (&b""[..], "has no samples"),
        (b"Id,red\n", "has no samples"),
        (
            b"Name,red\na,b\n",
            "has no column `Id`; its columns are `Name`, `red`",
        ),
        (b"Id,blue\na,b\n", "has no column `red`"),
        (b"Id,red,RED\na,b,c\n", "has two columns `red`"),
        (b"Id,red\n,b\n", "line 2: the id is empty"),
        (
            b"Id,red\na,b\nc,d\na,e\n",
            "line 4: the id `a` was already in line 2",
        ),
        (b"Id,red\na\n", "CSV error"),
        (b"Id,red\nb,c\na,\xff\n", "line 3 is not UTF-8"),
        (b"Id,\xff\n", "line 1 is not UTF-8"),
        (
            many.as_bytes(),
            "line 2: column `red` has more than 4096 bytes",
        ),
    ] {
        let (_dir, listed) = manifest("m.csv", text);
        let message = find(&listed, &["red"]).unwrap_err().to_string();
        assert!(
            message.contains(expected) && message.contains("m.csv"),
            "{message}"
        );
    }
    let (dir, mut listed) = manifest("m.csv", b"Id,red\na,b\n");
    listed.layout.pattern = Some("(?<id>.)".parse().unwrap());
    let message = find(&listed, &["red"]).unwrap_err().to_string();
    assert!(message.contains("omit --pattern"), "{message}");
    for kind in ["csv", "parquet"] {
        let path = dir.path().join(format!("large.{kind}"));
        let message = find(&Images::plain(&path), &["red"])
            .unwrap_err()
            .to_string();
        assert!(message.contains("cannot be read"), "{message}");
        let file = fs::File::create(&path).unwrap();
        file.set_len((512 << 20) + 1).unwrap();
        let message = find(&Images::plain(&path), &["red"])
            .unwrap_err()
            .to_string();
        assert!(message.contains("more than 536870912 bytes"), "{message}");
    }
    let other = dir.path().join("m.txt");
    fs::write(&other, "").unwrap();
    for channels in [&[][..], &[("red", "0")]] {
        let message = find(&images(&other, None, channels), &["red"]);
        assert!(
            message
                .unwrap_err()
                .to_string()
                .contains("or a manifest (.csv or .parquet)")
        );
    }
    // A folder name may end with `.csv`.
    let odd = dir.path().join("images.csv");
    fs::create_dir(&odd).unwrap();
    fs::write(odd.join("a_red.png"), "").unwrap();
    assert_eq!(find(&Images::plain(&odd), &["red"]).unwrap().len(), 1);
}

fn parquet(columns: Vec<(&str, ArrayRef)>) -> Vec<u8> {
    let batch = RecordBatch::try_from_iter_with_nullable(
        columns
            .into_iter()
            .map(|(name, column)| (name, column, true)),
    )
    .unwrap();
    let mut bytes = Vec::new();
    let mut writer = ArrowWriter::try_new(&mut bytes, batch.schema(), None).unwrap();
    writer.write(&batch).unwrap();
    writer.close().unwrap();
    bytes
}

#[test]
fn reads_parquet_manifests() {
    let ids: ArrayRef = Arc::new(LargeStringArray::from(vec![
        Some("b"),
        Some("a"),
        Some("c"),
    ]));
    let red: ArrayRef = Arc::new(StringArray::from(vec![
        Some("1.tif#0"),
        Some("2.png"),
        None,
    ]));
    let bytes = parquet(vec![
        ("red", red.clone()),
        ("more", ids.clone()),
        ("Id", ids),
    ]);
    let (dir, listed) = manifest("m.parquet", &bytes);
    let samples = find(&listed, &["red"]).unwrap();
    assert_eq!(shown(dir.path(), &samples), ["a 2.png", "b 1.tif", "c -"]);
    assert_eq!(*samples[1].picks, [ChannelSelector::Channel("0".into())]);
    let numbers: ArrayRef = Arc::new(Int64Array::from(vec![1, 2, 3]));
    let nothing: ArrayRef = Arc::new(StringArray::from(vec![None::<&str>; 3]));
    for (bytes, expected) in [
        (
            parquet(vec![("Id", numbers), ("red", red.clone())]),
            "column `Id` has the type Int64",
        ),
        (
            parquet(vec![("Id", nothing), ("red", red.clone())]),
            "row 1: the id is empty",
        ),
        (parquet(vec![("Id", red.clone())]), "has no column `red`"),
        (
            bytes[..bytes.len() - 9].to_vec(),
            "cannot be read as Parquet",
        ),
        (b"PAR1".to_vec(), "cannot be read as Parquet"),
        (Vec::new(), "cannot be read as Parquet"),
    ] {
        let (_dir, listed) = manifest("m.parquet", &bytes);
        let message = find(&listed, &["red"]).unwrap_err().to_string();
        assert!(
            message.contains(expected) && message.contains("m.parquet"),
            "{message}"
        );
    }
    // No flipped byte panics.
    for at in 0..bytes.len() {
        let mut flipped = bytes.clone();
        flipped[at] ^= 0x55;
        let (_dir, listed) = manifest("m.parquet", &flipped);
        let _ = find(&listed, &["red"]);
    }
}
