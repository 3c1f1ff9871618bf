mod hostile;

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use serde::Deserialize;

use super::super::decode_plane;
use super::*;
use crate::Plane;

/// What `tests/golden/channel_tiffs.py` writes.
#[derive(Deserialize)]
struct Golden {
    cases: Vec<Case>,
}

#[derive(Deserialize)]
struct Case {
    name: String,
    file: String,
    width: u32,
    height: u32,
    names: Option<Vec<String>>,
    planes: String,
}

fn golden() -> Vec<Case> {
    let text = include_str!("../../../../../tests/golden/channel_tiffs.json");
    let golden: Golden = serde_json::from_str(text).unwrap();
    golden.cases
}

fn decode(bytes: &[u8], wanted: &[&str]) -> Result<((u32, u32), Vec<u8>), DecodeError> {
    let mut out = vec![77];
    let size = append_channels(bytes, wanted, &DecodeLimits::default(), &mut out);
    assert_eq!(out[0], 77);
    if size.is_err() {
        assert_eq!(out, [77]);
    }
    size.map(|size| (size, out.split_off(1)))
}

#[test]
fn all_kinds_of_files_decode_to_their_planes_but_one() {
    let cases = golden();
    assert_eq!(cases.len(), 62);
    for case in cases {
        let file = BASE64_STANDARD.decode(&case.file).unwrap();
        let planes = BASE64_STANDARD.decode(&case.planes).unwrap();
        let area = case.width as usize * case.height as usize;
        let numbers: Vec<String> = (0..planes.len() / area).map(|n| n.to_string()).collect();
        let numbers: Vec<&str> = numbers.iter().map(String::as_str).collect();
        if case.name.starts_with("planar tiles") {
            let refused = DecodeError::Unsupported(PLANAR_TILES.into());
            assert_eq!(decode(&file, &["0"]).unwrap_err(), refused);
            continue;
        }
        let expected = ((case.width, case.height), planes.clone());
        assert_eq!(decode(&file, &numbers).unwrap(), expected, "{}", case.name);
        // In any order, and not all of them.
        if numbers.len() == 4 {
            let two = [&planes[3 * area..], &planes[area..2 * area]].concat();
            assert_eq!(decode(&file, &["3", "1"]).unwrap().1, two, "{}", case.name);
        }
        for (number, name) in case.names.iter().flatten().enumerate() {
            let plane = &planes[number * area..][..area];
            for name in [name.clone(), name.to_lowercase()] {
                assert_eq!(decode(&file, &[&name]).unwrap().1, plane, "{}", case.name);
            }
        }
    }
}

#[test]
fn a_gray_file_alone_is_the_same_plane_as_its_only_channel() {
    for case in golden()
        .iter()
        .filter(|case| case.name.starts_with("pages"))
    {
        let file = BASE64_STANDARD.decode(&case.file).unwrap();
        let alone = decode_plane(&file, &DecodeLimits::default()).unwrap();
        let (size, data) = decode(&file, &["0"]).unwrap();
        let (width, height) = size;
        let plane = Plane {
            width,
            height,
            data,
        };
        assert_eq!(alone, plane, "{}", case.name);
    }
}

/// A page of a small uncompressed TIFF file.
#[derive(Clone)]
struct Page {
    size: (u32, u32),
    bits: u16,
    samples: u16,
    format: u16,
    description: String,
}

fn page(description: &str) -> Page {
    Page {
        size: (3, 2),
        bits: 8,
        samples: 1,
        format: 1,
        description: description.into(),
    }
}

/// Little-endian; the values of page `p` are all `p + 1`.
fn tiff(pages: &[Page]) -> Vec<u8> {
    let mut file = b"II*\0".to_vec();
    let mut link = file.len();
    file.extend([0; 4]);
    for (number, page) in pages.iter().enumerate() {
        let samples = u32::from(page.samples);
        let bytes = page.size.0 * page.size.1 * samples * u32::from(page.bits / 8);
        let data = append(
            &mut file,
            &vec![(number as u8).wrapping_add(1); bytes.min(1 << 16) as usize],
        );
        let text = append(&mut file, &[page.description.as_bytes(), &[0; 5]].concat());
        let bits = append(
            &mut file,
            &page.bits.to_le_bytes().repeat(page.samples.into()),
        );
        let formats = page.format.to_le_bytes().repeat(page.samples.into());
        let formats = append(&mut file, &formats);
        let many = |value: u16, at| match samples {
            1 => u32::from(value),
            2 => u32::from(value) * 0x1_0001,
            _ => at,
        };
        let entries: [(u16, u16, u32, u32); 11] = [
            (256, 4, 1, page.size.0),
            (257, 4, 1, page.size.1),
            (258, 3, samples, many(page.bits, bits)),
            (259, 3, 1, 1),
            (262, 3, 1, 1),
            (270, 2, page.description.len() as u32 + 5, text),
            (273, 4, 1, data),
            (277, 3, 1, samples),
            (278, 4, 1, page.size.1),
            (279, 4, 1, bytes),
            (339, 3, samples, many(page.format, formats)),
        ];
        let at = append(&mut file, &(entries.len() as u16).to_le_bytes());
        for (tag, kind, count, value) in entries {
            file.extend([tag.to_le_bytes(), kind.to_le_bytes()].concat());
            file.extend([count.to_le_bytes(), value.to_le_bytes()].concat());
        }
        file[link..link + 4].copy_from_slice(&at.to_le_bytes());
        link = file.len();
        file.extend([0; 4]);
    }
    file
}

/// Where the bytes were put, which is an even place.
fn append(file: &mut Vec<u8>, bytes: &[u8]) -> u32 {
    file.resize(file.len().next_multiple_of(4), 0);
    let at = file.len() as u32;
    file.extend_from_slice(bytes);
    at
}

fn ome(pixels: &str, inside: &str) -> String {
    format!(
        "<OME xmlns=\"o\" UUID=\"this\"><Image><Pixels Type=\"uint8\" SizeX=\"3\" SizeY=\"2\" \
         SizeZ=\"1\" SizeT=\"1\" {pixels}>{inside}</Pixels></Image></OME>"
    )
}

fn four(description: &str) -> Vec<u8> {
    tiff(&[page(description), page(""), page(""), page("")])
}

fn message(bytes: &[u8], wanted: &str) -> String {
    decode(bytes, &[wanted]).unwrap_err().to_string()
}

#[test]
fn names_come_before_numbers_and_both_are_explained() {
    let names = r#"<Channel Name="2"/><Channel Name=" dna "/><Channel/><Channel Name="X"/>"#;
    let file = four(&ome("SizeC=\"4\"", names));
    for (wanted, value) in [("2", 1), ("DNA", 2), ("1", 2), ("x", 4), (" 3 ", 4)] {
        assert_eq!(decode(&file, &[wanted]).unwrap().1, [value; 6], "{wanted}");
    }
    for wanted in ["red", "4", "-1", "1.0", ""] {
        let message = message(&file, wanted);
        assert!(message.contains("its channels are 0 `2`, 1 `dna`, 2 without a name, 3 `X`"));
        assert!(message.contains("--channel red=0"), "{message}");
    }
    let twice = r#"<Channel Name="a"/><Channel Name="A"/>"#;
    let twice = four(&ome("SizeC=\"2\"", twice));
    assert!(message(&twice, "a").contains("several channels `a`"));
    assert_eq!(decode(&twice, &["1"]).unwrap().1, [2; 6]);
    // Pages beyond those that are described are none of its channels.
    assert!(message(&twice, "2").contains("no channel `2`"));
}

#[test]
fn pages_are_where_tiff_data_says() {
    let blocks = r#"<TiffData IFD="2" FirstC="0" PlaneCount="2"/><TiffData FirstC="2"/>"#;
    let file = four(&ome("SizeC=\"4\"", blocks));
    let planes = decode(&file, &["0", "1", "2", "3"]).unwrap().1;
    assert_eq!(
        planes.chunks(6).map(|p| p[0]).collect::<Vec<_>>(),
        [3, 4, 1, 2]
    );
    let here = r#"<TiffData><UUID FileName="old-name.tif">this</UUID></TiffData>"#;
    let here = four(&ome("SizeC=\"4\"", here));
    assert_eq!(decode(&here, &["3"]).unwrap().1, [4; 6]);
    // Samples of a pixel are the channels in order, whatever is said of pages.
    let mut samples = page(&ome("SizeC=\"2\"", r#"<TiffData IFD="0"/>"#));
    samples.samples = 2;
    assert_eq!(decode(&tiff(&[samples]), &["1"]).unwrap().1, [1; 6]);
}

#[test]
fn checking_looks_at_headers_only() {
    let mut file = tiff(&[page(&ome("SizeC=\"1\"", r#"<Channel Name="a"/>"#))]);
    let limits = DecodeLimits::default();
    check_channels(&file, &["A", "0"], &limits).unwrap();
    let error = check_channels(&file, &["a", "b"], &limits).unwrap_err();
    assert!(matches!(
        error,
        DecodeError::Channels(ChannelError::Missing { .. })
    ));
    // The strip leads nowhere.
    let strip = [17, 1, 4, 0, 1, 0, 0, 0];
    let at = file.windows(8).position(|bytes| bytes == strip).unwrap() + 8;
    file[at..at + 4].fill(0xFF);
    check_channels(&file, &["a"], &limits).unwrap();
    assert!(message(&file, "a").contains("it ends too early"));
}
