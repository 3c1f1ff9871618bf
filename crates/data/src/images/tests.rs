use std::fs;

use tempfile::TempDir;

use super::*;
use rgby_imaging::ChannelSelector;

/// A folder of empty files.
fn folder(names: &[&str]) -> TempDir {
    let dir = tempfile::tempdir().unwrap();
    for name in names {
        let path = dir.path().join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, "").unwrap();
    }
    dir
}

pub(super) fn images(path: &Path, pattern: Option<&str>, channels: &[(&str, &str)]) -> Images {
    let own = |(stain, name): &(&str, &str)| ((*stain).to_owned(), (*name).to_owned());
    Images {
        path: path.to_owned(),
        layout: Layout {
            pattern: pattern.map(|text| text.parse().unwrap()),
            channels: channels.iter().map(own).collect(),
        },
    }
}

pub(super) fn find(images: &Images, stains: &[&str]) -> Result<Vec<Sample>, ImagesError> {
    let stains: Vec<String> = stains.iter().map(ToString::to_string).collect();
    images.find(&stains)
}

/// Ids with the file names below the folder.
pub(super) fn shown(dir: &Path, samples: &[Sample]) -> Vec<String> {
    let name = |file: &Option<PathBuf>| match file {
        Some(path) => path.strip_prefix(dir).unwrap_or(path).display().to_string(),
        None => "-".into(),
    };
    let line = |sample: &Sample| {
        let files: Vec<String> = sample.files.iter().map(name).collect();
        format!("{} {}", sample.id, files.join(" "))
    };
    samples.iter().map(line).collect()
}

#[test]
fn patterns_match_the_file_names_of_common_instruments() {
    let red_green = ["red", "green"];
    for (names, pattern, channels, expected) in [
        (
            // Opera, Operetta
            [
                "r01c02f03p01-ch1sk1fk1fl1.tiff",
                "r01c02f03p01-ch2sk1fk1fl1.tiff",
                "r01c02f03p02-ch1sk1fk1fl1.tiff",
                "Index.idx.xml",
            ],
            r"(?<well>r\d\dc\d\d)(?<field>f\d\d)p01-ch(?<channel>\d)sk.*\.tiff",
            [("red", "1"), ("green", "2")],
            "r01c02_f03 r01c02f03p01-ch1sk1fk1fl1.tiff r01c02f03p01-ch2sk1fk1fl1.tiff",
        ),
        (
            // ImageXpress
            [
                "plate7_A01_s1_w1.tif",
                "plate7_A01_s1_w2.tif",
                "plate7_A01_s1_w1_thumb.tif",
                "plate7_A01_s1_w3.tif",
            ],
            r"(?<plate>.*)_(?<well>[A-P]\d\d)_s(?<site>\d+)_w(?<channel>\d)\.tif",
            [("red", "2"), ("green", "1")],
            "plate7_A01_1 plate7_A01_s1_w2.tif plate7_A01_s1_w1.tif",
        ),
        (
            // CellVoyager
            [
                "AssayPlate_C02_T0001F001L01A01Z01C01.tif",
                "AssayPlate_C02_T0001F001L01A02Z01C02.tif",
                "MeasurementData.mlf",
                "DC_sCMOS_CAM1.tif",
            ],
            r".*_(?<well>[A-P]\d\d)_T0001(?<field>F\d+)L01A\d\dZ01(?<channel>C\d\d)\.tif",
            [("red", "c01"), ("green", "C02")],
            "C02_F001 AssayPlate_C02_T0001F001L01A01Z01C01.tif \
             AssayPlate_C02_T0001F001L01A02Z01C02.tif",
        ),
        (
            // Human Protein Atlas, by folders
            [
                "1/7_A1_1_red.jpg",
                "1/7_A1_1_green.jpg",
                "1/7_A1_1_blue.jpg",
                "readme",
            ],
            r"\d+/(?<id>.+)_(?<channel>[a-z]+)\.jpg",
            [("red", "red"), ("green", "GREEN")],
            "7_A1_1 1/7_A1_1_red.jpg 1/7_A1_1_green.jpg",
        ),
    ] {
        let dir = folder(&names);
        let samples = find(&images(dir.path(), Some(pattern), &channels), &red_green).unwrap();
        assert_eq!(shown(dir.path(), &samples), [expected]);
        assert!(samples[0].is_complete());
    }
}

#[test]
fn patterns_match_whole_names_and_paths_if_they_contain_a_slash() {
    let dir = folder(&["a_red.png", "a_red.png.bak", "x/b_red.png", "x/y/c_red.png"]);
    let found = |pattern: &str| {
        let samples = find(&images(dir.path(), Some(pattern), &[]), &["red"]).unwrap();
        samples.iter().map(|s| s.id.clone()).collect::<Vec<_>>()
    };
    assert_eq!(found(r"(?<id>.)_(?<channel>red)\.png"), ["a"]);
    assert_eq!(found(r"x/(?<id>.)_(?<channel>red)\.png"), ["b"]);
    assert_eq!(
        found(r"(?<a>.*/)?(?<id>.)_(?<channel>red)\.png"),
        ["a", "x/_b", "x/y/_c"]
    );
    // A shorter alternative must not match if only the longer one gives the whole name.
    assert_eq!(found(r"(?<id>a)_(?<channel>r|red)(?:|\.png)"), ["a"]);
}

#[cfg(unix)]
#[test]
fn follows_links_up_to_a_depth() {
    let dir = folder(&["x/b_red.png"]);
    std::os::unix::fs::symlink("x", dir.path().join("y")).unwrap();
    std::os::unix::fs::symlink("nowhere", dir.path().join("x/c_red.png")).unwrap();
    let pattern = Some(r"(?<folder>\w)/(?<id>.)_(?<channel>red)\.png");
    let samples = find(&images(dir.path(), pattern, &[]), &["red"]).unwrap();
    let ids: Vec<_> = samples.iter().map(|s| s.id.as_str()).collect();
    assert_eq!(ids, ["x_b", "x_c", "y_b", "y_c"]);
    std::os::unix::fs::symlink("..", dir.path().join("x/up")).unwrap();
    let error = find(&images(dir.path(), pattern, &[]), &["red"]).unwrap_err();
    assert!(
        error.to_string().contains("a link to a parent folder"),
        "{error}"
    );
}

#[test]
fn patterns_without_channel_group_select_multichannel_files() {
    let dir = folder(&["p_A1.tif", "p_A2.ome.tiff", "p_A3.png"]);
    let chosen = images(
        dir.path(),
        Some(r"p_(?<id>A[12])\..*tiff?"),
        &[("green", "3")],
    );
    let samples = find(&chosen, &["red", "green"]).unwrap();
    assert_eq!(
        shown(dir.path(), &samples),
        ["A1 p_A1.tif p_A1.tif", "A2 p_A2.ome.tiff p_A2.ome.tiff"]
    );
    assert_eq!(
        *samples[1].picks,
        [
            ChannelSelector::Channel("red".into()),
            ChannelSelector::Channel("3".into())
        ]
    );
    let png = images(dir.path(), Some(r"p_(?<id>A\d)\..*"), &[]);
    let message = find(&png, &["red"]).unwrap_err().to_string();
    assert!(
        message.contains("p_A3.png") && message.contains("(?<channel>…)"),
        "{message}"
    );
}

#[test]
fn pattern_errors_name_the_reason() {
    for (text, wanted) in [
        ("(", "unclosed group"),
        ("a", "no named group"),
        ("(?<channel>a)", "(?<id>…)"),
        (r"(?<id>\w{999}{999})", "size limit"),
    ] {
        let message = text.parse::<Pattern>().unwrap_err().to_string();
        assert!(message.contains(wanted), "{message}");
    }
    let dir = folder(&["a_w1.tif", "b_w1.tif", "b_w2.tif", "c.txt"]);
    for (pattern, channels, wanted) in [
        (
            r"(?<id>x)_(?<channel>\d)",
            [].as_slice(),
            vec![
                "none of the 4 files",
                "`a_w1.tif`, `b_w1.tif`, `b_w2.tif`",
                "the whole name",
            ],
        ),
        (
            r"(?<id>x)/(?<channel>\d)",
            &[],
            vec!["the whole path below that folder"],
        ),
        (
            r"(?<id>.)_w(?<channel>\d)\.tif",
            &[("red", "1")],
            vec![
                "no file has the channel `green`",
                "`1`, `2`",
                "--channel green=…",
            ],
        ),
        (
            r"(?<id>.)_w(?<channel>\d)\.tif",
            &[("red", "1"), ("green", "9")],
            vec!["no file has the channel `9` for the stain green"],
        ),
        (
            r".(?<id>_)(?<channel>w)\d\.tif",
            &[("red", "w"), ("green", "w")],
            vec!["a_w1.tif", "b_w1.tif", "both channel w of sample `_`"],
        ),
        (
            r".(?<id>_)w1\.tif",
            &[],
            vec!["both channel red, green of sample `_`"],
        ),
        (
            r"(?<id>\w?)(?<channel>x)?.*",
            &[("blue", "1")],
            vec!["unknown stain `blue`\nhint: use one of red, green"],
        ),
    ] {
        let message = find(
            &images(dir.path(), Some(pattern), channels),
            &["red", "green"],
        )
        .unwrap_err()
        .to_string();
        for part in wanted {
            assert!(message.contains(part), "{pattern}: {message}");
        }
    }
    // One sample may lack a channel.
    let both = images(
        dir.path(),
        Some(r"(?<id>.)_w(?<channel>\d)\.tif"),
        &[("red", "1"), ("green", "2")],
    );
    let samples = find(&both, &["red", "green"]).unwrap();
    assert_eq!(
        shown(dir.path(), &samples),
        ["a a_w1.tif -", "b b_w1.tif b_w2.tif"]
    );
    fs::remove_file(dir.path().join("c.txt")).unwrap();
    let nowhere = images(&dir.path().join("none"), Some("(?<id>.)"), &[]);
    assert!(
        find(&nowhere, &["red"])
            .unwrap_err()
            .to_string()
            .contains("cannot list")
    );
    let empty = folder(&[]);
    let message = find(&images(empty.path(), Some("(?<id>.)"), &[]), &["red"]);
    assert!(
        message
            .unwrap_err()
            .to_string()
            .contains("none of the 0 files")
    );
}

#[test]
fn tiff_files_are_samples_if_no_file_is_of_a_single_stain() {
    let dir = folder(&["b.ome.tif", "a.TIFF", "notes.txt"]);
    let samples = find(&Images::plain(dir.path()), &["red", "green"]).unwrap();
    assert_eq!(
        shown(dir.path(), &samples),
        ["a a.TIFF a.TIFF", "b b.ome.tif b.ome.tif"]
    );
    assert_eq!(
        samples[0].picks[1],
        ChannelSelector::Channel("green".into())
    );
    fs::write(dir.path().join("c_red.tif"), "").unwrap();
    let samples = find(&Images::plain(dir.path()), &["red", "green"]).unwrap();
    assert_eq!(shown(dir.path(), &samples), ["c c_red.tif -"]);
    // `--channel` always selects channels of TIFF files.
    let chosen = images(dir.path(), None, &[("red", "0"), ("green", "DAPI")]);
    let samples = find(&chosen, &["red", "green"]).unwrap();
    assert_eq!(
        samples.iter().map(|s| s.id.as_str()).collect::<Vec<_>>(),
        ["a", "b", "c_red"]
    );
    assert_eq!(
        *samples[0].picks,
        [
            ChannelSelector::Channel("0".into()),
            ChannelSelector::Channel("DAPI".into())
        ]
    );
    fs::write(dir.path().join("a.ome.tif"), "").unwrap();
    let message = find(&chosen, &["red", "green"]).unwrap_err().to_string();
    assert!(message.contains("sample `a` has two files") && message.contains("a.ome.tif"));
    let none = folder(&["a_red.png"]);
    let message = find(&images(none.path(), None, &[("red", "0")]), &["red"]);
    let message = message.unwrap_err().to_string();
    assert!(
        message.contains("no TIFF files") && message.contains("--pattern"),
        "{message}"
    );
}

#[test]
fn layout_text_identifies_pattern_and_channels() {
    let path = Path::new("images");
    let key = |pattern, channels: &[_]| images(path, pattern, channels).layout.to_string();
    assert_eq!(key(None, &[]), "");
    assert_eq!(
        key(Some("(?<id>.)"), &[("red", "0"), ("blue", "DAPI")]),
        r#", pattern "(?<id>.)", channel "blue"="DAPI", channel "red"="0""#
    );
}
