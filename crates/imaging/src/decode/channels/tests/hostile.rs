//! Contradictory, damaged and slow files.

use std::fmt::Write as _;
use std::time::{Duration, Instant};

use cpu_time::ThreadTime;
use rand::rngs::ChaCha8Rng;
use rand::{RngExt, SeedableRng};

use super::*;

#[test]
fn rejects_contradictory_descriptions() {
    let c4 = |inside: &str| ome("SizeC=\"4\"", inside);
    for (description, wanted) in [
        (ome("SizeC=\"5\"", ""), "has SizeC 5, but the file has 4"),
        (ome("SizeC=\"0\"", ""), "(0 channels)"),
        (ome("SizeC=\"4000000000\"", ""), "(4000000000 channels)"),
        (ome("SizeC=\"-1\"", ""), "SizeC is `-1`"),
        (ome("", ""), "Pixels has no SizeC"),
        (
            c4("").replace("SizeX=\"3\"", "SizeX=\"4\""),
            "has SizeX×SizeY 4×2, but the file has 3×2",
        ),
        (
            c4("").replace("uint8", "uint16"),
            "has Type uint16, but the file has unsigned values of 8 bits",
        ),
        (c4("").replace("uint8", "float"), "has Type float"),
        (
            c4("").replace("SizeZ=\"1\"", "SizeZ=\"7\""),
            "a stack of 7 Z planes and 1 time points",
        ),
        (
            c4("").replace("SizeT=\"1\"", "SizeT=\"2\""),
            "1 Z planes and 2 time points",
        ),
        (
            c4(&"<Channel/>".repeat(5)),
            "has SizeC 4, but the file has more Channel elements",
        ),
        (
            c4("<Channel SamplesPerPixel=\"18446744073709551615\"/>"),
            "more Channel elements",
        ),
        (c4("<TiffData IFD=\"1\"/>"), "no TiffData for channel 1"),
        (
            c4("<TiffData IFD=\"1\" PlaneCount=\"4\"/>"),
            "has IFD 4, but the file has 4 pages",
        ),
        (
            c4("<TiffData IFD=\"18446744073709551615\" PlaneCount=\"4\"/>"),
            "has IFD 18446744073709551615",
        ),
        (
            c4("<TiffData FirstC=\"4\"/>"),
            "has TiffData channel 3, but the file has channels 0 to 3",
        ),
        (c4("<TiffData PlaneCount=\"5\"/>"), "has TiffData channel 4"),
        (c4("<TiffData/><TiffData/>"), "two TiffData for channel 0"),
        (
            c4("<TiffData><UUID>that</UUID></TiffData>"),
            "another file for channel 0",
        ),
        ("<OME/>".into(), "describes 0 images"),
        (
            c4("").replace("</OME>", "<Image/></OME>"),
            "describes 2 images",
        ),
        ("<OME><Image/></OME>".into(), "Image has no Pixels"),
        (
            c4("<Channel Name=\"a\">"),
            "its OME-XML is invalid (expected 'Channel' tag",
        ),
        (
            "<!DOCTYPE a [<!ENTITY b \"c\">]><OME>&b;</OME>".into(),
            "its OME-XML is invalid (XML with DTD",
        ),
        (
            "ImageJ=1.5\nimages=12\nchannels=4\nslices=3\n".into(),
            "a stack of 3 Z planes",
        ),
        ("ImageJ=1.5\nchannels=4\nframes=3\n".into(), "3 time points"),
        (
            "ImageJ=1.5\nchannels=5\n".into(),
            "has channels 5, but the file has 4",
        ),
    ] {
        let message = message(&four(&description), "0");
        assert!(message.contains(wanted), "{description}: {message}");
    }
    // Other descriptions are ignored.
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
fn parses_expensive_descriptions_in_bounded_time() {
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
        // Processor time: other tests run at the same time.
        let start = ThreadTime::now();
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
fn rejects_unsupported_files_with_a_reason() {
    let mut other = page("");
    other.size = (2, 2);
    let deep = TestPage {
        bits: 16,
        ..page("")
    };
    let samples = TestPage {
        samples: 3,
        ..page("")
    };
    let float = TestPage {
        bits: 16,
        format: 3,
        ..page("")
    };
    let signed = TestPage {
        format: 2,
        ..page("")
    };
    let wide = TestPage {
        bits: 32,
        ..page("")
    };
    let large = TestPage {
        size: (20_000, 1),
        ..page("")
    };
    let heavy = TestPage {
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
            "2 pages of 3 samples per pixel",
        ),
        (vec![page(""), samples], "2 pages of 3 samples per pixel"),
        (vec![float], "not supported"),
        (vec![signed], "not supported"),
        (vec![wide], "a page of 32 bits per sample is not supported"),
        (vec![large], "the image header claims 20000×1 pixels"),
        (vec![heavy], "larger than the limit of 1073741824 bytes"),
    ] {
        let names = ["0", "1"];
        let error = decode(&tiff(&pages), &names[..pages.len()]).unwrap_err();
        assert!(error.to_string().contains(wanted), "{error}");
    }
    // Depths may differ.
    assert_eq!(
        decode(&tiff(&[page(""), deep]), &["0", "1"]).unwrap().1[6..],
        [2; 6]
    );
    for (bytes, wanted) in [
        (&b""[..], "the file is empty"),
        (b"\x89PNG\r\n\x1a\n", "is not a TIFF file"),
        (b"II*\0", "the file ends too early"),
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
fn rejects_cycles_and_too_many_pages() {
    // The last link refers to the first page.
    let mut circle = four("");
    let first = circle[4..8].to_vec();
    let end = circle.len() - 4;
    circle[end..].copy_from_slice(&first);
    assert!(message(&circle, "9").contains("a cycle of pages"));
    let many = vec![
        TestPage {
            size: (1, 1),
            ..page("")
        };
        4097
    ];
    assert!(message(&tiff(&many), "0").contains("more than 4096 pages"));
    // Overlapping directories of 65,535 entries, each 14 bytes after the previous one.
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
fn truncated_files_are_rejected_or_decode_completely() {
    let names = r#"<Channel Name="a"/><Channel Name="b"/>"#;
    let whole = tiff(&[page(&ome("SizeC=\"2\"", names)), page("")]);
    let expected = decode(&whole, &["a", "b"]).unwrap();
    for end in 0..whole.len() {
        if let Ok(found) = decode(&whole[..end], &["a", "b"]) {
            assert_eq!(found, expected);
        }
    }
}

/// Mutates valid files: changes bytes and integers, moves or truncates parts.
/// `RGBY_MUTATION_SECONDS` sets a longer duration.
#[test]
fn mutated_files_are_decoded_or_rejected() {
    const ROUNDS: usize = 5_000;
    let limits = DecodeLimits {
        max_side: 1024,
        max_bytes: 1 << 22,
        max_file_bytes: 1 << 16,
    };
    let seconds = std::env::var("RGBY_MUTATION_SECONDS").map_or(0, |text| text.parse().unwrap());
    let read = |case: &TiffCase| BASE64_STANDARD.decode(&case.file).unwrap();
    let seeds: Vec<Vec<u8>> = golden().iter().map(read).collect();
    let mut rng = ChaCha8Rng::seed_from_u64(seconds);
    let (start, mut rounds, mut decoded) = (Instant::now(), 0, 0);
    while rounds < ROUNDS || start.elapsed().as_secs() < seconds {
        let mut file = seeds[rng.random_range(0..seeds.len())].clone();
        for _ in 0..rng.random_range(1..5) {
            change(&mut file, &mut rng);
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
    println!("{rounds} mutated files, decoded {decoded} times");
}

fn change(file: &mut Vec<u8>, rng: &mut ChaCha8Rng) {
    const VALUES: [u32; 10] = [0, 1, 2, 4, 8, 255, 65_535, 1 << 16, 1 << 31, u32::MAX];
    if file.len() < 16 {
        return;
    }
    let at = rng.random_range(0..file.len() - 8);
    let value = VALUES[rng.random_range(0..VALUES.len())].to_le_bytes();
    match rng.random_range(0..7) {
        0 => file[at] ^= 1 << rng.random_range(0..8),
        1 => file[at] = rng.random(),
        2 => file[at..at + 4].copy_from_slice(&value),
        3 => file[at..at + 2].copy_from_slice(&value[..2]),
        4 => file.truncate(at),
        5 => {
            let to = rng.random_range(0..file.len() - 8);
            file.copy_within(at..at + 8, to);
        }
        // Replaces a digit of the OME-XML.
        _ => {
            let digits = (at..file.len()).find(|&place| file[place].is_ascii_digit());
            if let Some(place) = digits {
                file[place] = b'0' + rng.random_range(0..10);
            }
        }
    }
}
