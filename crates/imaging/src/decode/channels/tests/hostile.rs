//! Files that lie, are broken, or keep a reader busy.

use std::fmt::Write as _;
use std::time::{Duration, Instant};

use rand::rngs::ChaCha8Rng;
use rand::{RngExt, SeedableRng};

use super::*;

#[test]
fn descriptions_that_lie_are_refused() {
    let c4 = |inside: &str| ome("SizeC=\"4\"", inside);
    for (description, wanted) in [
        (ome("SizeC=\"5\"", ""), "says SizeC 5, but the file has 4"),
        (ome("SizeC=\"0\"", ""), "(0 channels)"),
        (ome("SizeC=\"4000000000\"", ""), "(4000000000 channels)"),
        (ome("SizeC=\"-1\"", ""), "SizeC is `-1`"),
        (ome("", ""), "Pixels has no SizeC"),
        (
            c4("").replace("SizeX=\"3\"", "SizeX=\"4\""),
            "says SizeX×SizeY 4×2, but the file has 3×2",
        ),
        (
            c4("").replace("uint8", "uint16"),
            "says Type uint16, but the file has 8 bits",
        ),
        (c4("").replace("uint8", "float"), "says Type float"),
        (
            c4("").replace("SizeZ=\"1\"", "SizeZ=\"7\""),
            "a stack of 7 planes in depth and 1 in time",
        ),
        (
            c4("").replace("SizeT=\"1\"", "SizeT=\"2\""),
            "1 planes in depth and 2 in time",
        ),
        (
            c4(&"<Channel/>".repeat(5)),
            "says SizeC 4, but the file has more of them",
        ),
        (
            c4("<Channel SamplesPerPixel=\"18446744073709551615\"/>"),
            "more of them",
        ),
        (
            c4("<TiffData IFD=\"1\"/>"),
            "no TiffData says where channel 1 is",
        ),
        (
            c4("<TiffData IFD=\"1\" PlaneCount=\"4\"/>"),
            "says IFD 4, but the file has 4 pages",
        ),
        (
            c4("<TiffData IFD=\"18446744073709551615\" PlaneCount=\"4\"/>"),
            "says IFD 18446744073709551615",
        ),
        (
            c4("<TiffData FirstC=\"4\"/>"),
            "there is channel 3, but the file has channels 0 to 3",
        ),
        (c4("<TiffData PlaneCount=\"5\"/>"), "there is channel 4"),
        (
            c4("<TiffData/><TiffData/>"),
            "two TiffData say where channel 0 is",
        ),
        (
            c4("<TiffData><UUID>that</UUID></TiffData>"),
            "channel 0 lies in another file",
        ),
        ("<OME/>".into(), "describes 0 images"),
        (
            c4("").replace("</OME>", "<Image/></OME>"),
            "describes 2 images",
        ),
        ("<OME><Image/></OME>".into(), "its Image has no Pixels"),
        (
            c4("<Channel Name=\"a\">"),
            "its OME-XML cannot be used (expected 'Channel' tag",
        ),
        (
            "<!DOCTYPE a [<!ENTITY b \"c\">]><OME>&b;</OME>".into(),
            "its OME-XML cannot be used (XML with DTD",
        ),
        (
            "ImageJ=1.5\nimages=12\nchannels=4\nslices=3\n".into(),
            "a stack of 3 planes in depth",
        ),
        ("ImageJ=1.5\nchannels=4\nframes=3\n".into(), "3 in time"),
        (
            "ImageJ=1.5\nchannels=5\n".into(),
            "says channels 5, but the file has 4",
        ),
    ] {
        let message = message(&four(&description), "0");
        assert!(message.contains(wanted), "{description}: {message}");
    }
    // Other descriptions say nothing of channels.
    for description in [
        "",
        "a <photo>",
        "<scn/>",
        "<NOT>a:OME</NOT>",
        "\0\0",
        "ImageJ=1",
    ] {
        assert_eq!(
            decode(&four(description), &["3"]).unwrap().1,
            [4; 6],
            "{description}"
        );
    }
}

#[test]
fn descriptions_cannot_keep_the_reader_busy() {
    let mut attributes = String::new();
    for number in 0..60_000 {
        write!(attributes, " a{number}=\"\"").unwrap();
    }
    let elements = "<Channel/>".repeat(100_001);
    for description in [
        format!("<OME>{}", "<a>".repeat(300_000)),
        format!("<OME{attributes}/>"),
        ome("SizeC=\"4\"", &elements),
        format!("<OME>{}</OME>", " ".repeat(1 << 20)),
    ] {
        let start = Instant::now();
        decode(&four(&description), &["0"]).unwrap_err();
        let seconds = start.elapsed();
        assert!(
            seconds < Duration::from_secs(10),
            "{seconds:?} for {}",
            &description[..40]
        );
    }
}

#[test]
fn files_that_are_no_such_tiff_are_refused() {
    let mut other = page("");
    other.size = (2, 2);
    let deep = Page {
        bits: 16,
        ..page("")
    };
    let samples = Page {
        samples: 3,
        ..page("")
    };
    let float = Page {
        bits: 16,
        format: 3,
        ..page("")
    };
    let signed = Page {
        format: 2,
        ..page("")
    };
    let wide = Page {
        bits: 32,
        ..page("")
    };
    let large = Page {
        size: (20_000, 1),
        ..page("")
    };
    let heavy = Page {
        size: (16_000, 16_000),
        samples: 9,
        ..page("")
    };
    for (pages, wanted) in [
        (
            vec![page(""), other],
            "a channel of 2×2 pixels after one of 3×2",
        ),
        (
            vec![samples.clone(), page("")],
            "2 pages of 3 samples a pixel",
        ),
        (vec![page(""), samples], "2 pages of 3 samples a pixel"),
        (vec![float], "not supported"),
        (vec![signed], "not supported"),
        (vec![wide], "a page of 32 bits a value is not supported"),
        (vec![large], "the image claims 20000×1 pixels"),
        (vec![heavy], "more than 1073741824 bytes"),
    ] {
        let wants = ["0", "1"];
        let error = decode(&tiff(&pages), &wants[..pages.len()]).unwrap_err();
        assert!(error.to_string().contains(wanted), "{error}");
    }
    // Depths may differ.
    assert_eq!(
        decode(&tiff(&[page(""), deep]), &["0", "1"]).unwrap().1[6..],
        [2; 6]
    );
    for (bytes, wanted) in [
        (&b""[..], "the file is empty"),
        (b"\x89PNG\r\n\x1a\n", "is no TIFF file"),
        (b"II*\0", "it ends too early"),
    ] {
        assert!(
            message(bytes, "0").contains(wanted),
            "{}",
            message(bytes, "0")
        );
    }
    let limits = DecodeLimits {
        max_file_bytes: 9,
        ..DecodeLimits::default()
    };
    let error = check_channels(&four(""), &["0"], &limits).unwrap_err();
    assert_eq!(error, DecodeError::FileTooLarge { limit: 9 });
}

#[test]
fn pages_without_an_end_are_refused() {
    // The last link leads to the first page, which begins before its entries.
    let mut circle = four("");
    let first = circle[4..8].to_vec();
    let end = circle.len() - 4;
    circle[end..].copy_from_slice(&first);
    assert!(message(&circle, "9").contains("follow each other in a circle"));
    let many = vec![
        Page {
            size: (1, 1),
            ..page("")
        };
        4097
    ];
    assert!(message(&tiff(&many), "0").contains("more than 4096 pages"));
    // Directories of 65,535 entries that overlap, each beginning a little after the one before.
    let mut file = tiff(&[page("")]);
    let link = file.len() - 4;
    let start = file.len();
    file.extend(vec![0xFF; 1 << 20]);
    file[link..]
        .iter_mut()
        .take(4)
        .zip((start as u32).to_le_bytes())
        .for_each(|(a, b)| *a = b);
    for step in 0..20_usize {
        let next = start + (step + 1) * 14;
        let at = start + step * 14 + 2 + 65_535 * 12;
        file[at..at + 4].copy_from_slice(&(next as u32).to_le_bytes());
    }
    let before = Instant::now();
    decode(&file, &["0"]).unwrap_err();
    assert!(before.elapsed() < Duration::from_secs(10));
}

#[test]
fn a_file_cut_anywhere_is_an_error_or_whole() {
    let names = r#"<Channel Name="a"/><Channel Name="b"/>"#;
    let whole = tiff(&[page(&ome("SizeC=\"2\"", names)), page("")]);
    let expected = decode(&whole, &["a", "b"]).unwrap();
    for end in 0..whole.len() {
        if let Ok(found) = decode(&whole[..end], &["a", "b"]) {
            assert_eq!(found, expected);
        }
    }
}

/// Small changes to files that are right: bytes, integers, and parts that are moved or cut off.
/// `RGBY_MUTATION_SECONDS` makes it go on for longer.
#[test]
fn changed_files_are_decoded_or_refused() {
    const ROUNDS: usize = 5_000;
    let limits = DecodeLimits {
        max_side: 1024,
        max_bytes: 1 << 22,
        max_file_bytes: 1 << 16,
    };
    let seconds = std::env::var("RGBY_MUTATION_SECONDS").map_or(0, |text| text.parse().unwrap());
    let read = |case: &Case| BASE64_STANDARD.decode(&case.file).unwrap();
    let seeds: Vec<Vec<u8>> = golden().iter().map(read).collect();
    let mut dice = ChaCha8Rng::seed_from_u64(seconds);
    let (start, mut rounds, mut decoded) = (Instant::now(), 0, 0);
    while rounds < ROUNDS || start.elapsed().as_secs() < seconds {
        let mut file = seeds[dice.random_range(0..seeds.len())].clone();
        for _ in 0..dice.random_range(1..5) {
            change(&mut file, &mut dice);
        }
        for wanted in [&["0"][..], &["3", "1"], &["dapi"]] {
            let before = Instant::now();
            if let Ok(planes) = decode_channels(&file, wanted, &limits) {
                assert!(planes.width.min(planes.height) > 0);
                assert_eq!(planes.data.len(), planes.plane_len() * wanted.len());
                decoded += 1;
            }
            assert!(before.elapsed() < Duration::from_secs(10));
        }
        rounds += 1;
    }
    assert!(decoded > 0);
    println!("{rounds} changed files, {decoded} times decoded");
}

fn change(file: &mut Vec<u8>, dice: &mut ChaCha8Rng) {
    const VALUES: [u32; 10] = [0, 1, 2, 4, 8, 255, 65_535, 1 << 16, 1 << 31, u32::MAX];
    if file.len() < 16 {
        return;
    }
    let at = dice.random_range(0..file.len() - 8);
    let value = VALUES[dice.random_range(0..VALUES.len())].to_le_bytes();
    match dice.random_range(0..7) {
        0 => file[at] ^= 1 << dice.random_range(0..8),
        1 => file[at] = dice.random(),
        2 => file[at..at + 4].copy_from_slice(&value),
        3 => file[at..at + 2].copy_from_slice(&value[..2]),
        4 => file.truncate(at),
        5 => {
            let to = dice.random_range(0..file.len() - 8);
            file.copy_within(at..at + 8, to);
        }
        // Another digit in OME-XML.
        _ => {
            let digits = (at..file.len()).find(|&place| file[place].is_ascii_digit());
            if let Some(place) = digits {
                file[place] = b'0' + dice.random_range(0..10);
            }
        }
    }
}
