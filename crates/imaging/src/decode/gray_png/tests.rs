//! Tests that the fast PNG decoder agrees with the `png` crate and rejects what the crate rejects.

use png::{BitDepth, ColorType, Encoder, Filter};

use super::*;
use crate::decode::{DecodeError, png as reference};

fn encoded(width: u32, height: u32, filter: Filter, noise: u32) -> (Vec<u8>, Vec<u8>) {
    let pixels: Vec<u8> = (0..width * height)
        .map(|i| {
            (i / width * 3 + i % width * 2 + (i.wrapping_mul(i).wrapping_mul(7919) >> 5) % noise)
                as u8
        })
        .collect();
    let mut file = Vec::new();
    let mut encoder = Encoder::new(&mut file, width, height);
    encoder.set_color(ColorType::Grayscale);
    encoder.set_depth(BitDepth::Eight);
    encoder.set_filter(filter);
    let mut writer = encoder.write_header().unwrap();
    writer.write_image_data(&pixels).unwrap();
    writer.finish().unwrap();
    (file, pixels)
}

fn read(file: &[u8]) -> Option<((u32, u32), Vec<u8>)> {
    let mut out = vec![7; 3];
    let size = append(file, &DecodeLimits::default(), &mut out)?;
    assert_eq!(out[..3], [7; 3]);
    Some((size, out.split_off(3)))
}

/// Returns the file with changed chunks and valid CRCs.
fn changed(file: &[u8], change: impl Fn(&[u8; 4], &mut Vec<u8>)) -> Vec<u8> {
    let mut out = SIGNATURE.to_vec();
    for (name, data) in PngChunks(&file[8..]) {
        let mut data = data.to_vec();
        change(name, &mut data);
        push_chunk(&mut out, *name, &data);
    }
    out
}

fn push_chunk(out: &mut Vec<u8>, name: [u8; 4], data: &[u8]) {
    out.extend((data.len() as u32).to_be_bytes());
    let crc = crc32fast::hash(&[&name[..], data].concat());
    out.extend(name);
    out.extend(data);
    out.extend(crc.to_be_bytes());
}

#[test]
fn decodes_every_filter_and_shape() {
    let filters = [
        Filter::NoFilter,
        Filter::Sub,
        Filter::Up,
        Filter::Avg,
        Filter::Paeth,
        Filter::Adaptive,
    ];
    for filter in filters {
        for (width, height) in [(1, 1), (1, 6), (2, 3), (33, 1), (40, 31), (301, 200)] {
            for noise in [2, 60, 255] {
                let (file, pixels) = encoded(width, height, filter, noise);
                let found = read(&file);
                let right = found == Some(((width, height), pixels));
                assert!(right, "{filter:?} {width}×{height} {noise}");
            }
        }
    }
}

/// Random rows with random filters, compared with the `png` crate.
#[test]
fn any_order_of_filters_matches_the_png_crate() {
    let (template, _) = encoded(23, 40, Filter::NoFilter, 2);
    let mut state = 1u32;
    let mut random = move || {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (state >> 24) as u8
    };
    for _ in 0..50 {
        let mut rows: Vec<u8> = (0..24 * 40).map(|_| random()).collect();
        for row in rows.chunks_mut(24) {
            row[0] %= 5;
        }
        let data = stored_zlib(&rows);
        let file = changed(&template, |name, old| {
            if name == b"IDAT" {
                old.clone_from(&data);
            }
        });
        let mut expected = Vec::new();
        reference::append(&file, &DecodeLimits::default(), &mut expected).unwrap();
        assert!(read(&file) == Some(((23, 40), expected)));
    }
}

/// Returns a zlib stream of one uncompressed block.
fn stored_zlib(data: &[u8]) -> Vec<u8> {
    let length = data.len() as u16;
    let mut out = vec![0x78, 0x01, 0x01];
    out.extend(length.to_le_bytes());
    out.extend((!length).to_le_bytes());
    out.extend(data);
    let (low, high) = data.iter().fold((1u32, 0u32), |(low, high), &byte| {
        let low = (low + u32::from(byte)) % 65_521;
        (low, (high + low) % 65_521)
    });
    out.extend((high << 16 | low).to_be_bytes());
    out
}

#[test]
fn decodes_pixels_in_many_chunks_after_optional_ones() {
    let (file, pixels) = encoded(40, 31, Filter::Adaptive, 60);
    let mut split = SIGNATURE.to_vec();
    for (name, data) in PngChunks(&file[8..]) {
        if name == b"IDAT" {
            push_chunk(&mut split, *b"tEXt", b"Title\0x");
            push_chunk(&mut split, *b"IDAT", b"");
            for part in data.chunks(7) {
                push_chunk(&mut split, *b"IDAT", part);
            }
        } else {
            push_chunk(&mut split, *name, data);
        }
    }
    assert!(read(&split) == Some(((40, 31), pixels)));
}

#[test]
fn rejects_what_the_png_crate_rejects() {
    let (file, _) = encoded(40, 31, Filter::Adaptive, 60);
    let limits = DecodeLimits::default();
    let end = file.len() - 12;
    for at in 0..end {
        let mut wrong = file.clone();
        wrong[at] ^= 0x10;
        for wrong in [&wrong[..], &file[..at]] {
            let by_crate = reference::append(wrong, &limits, &mut Vec::new());
            assert!(by_crate.is_err() && read(wrong).is_none(), "byte {at}");
        }
    }
    let assert_both_reject = |name: &[u8; 4], change: &dyn Fn(&mut Vec<u8>)| {
        let wrong = changed(&file, |chunk, data| {
            if chunk == name {
                change(data);
            }
        });
        let by_crate = reference::append(&wrong, &limits, &mut Vec::new());
        assert!(matches!(by_crate, Err(DecodeError::Damaged(_))));
        assert!(read(&wrong).is_none());
    };
    assert_both_reject(b"IDAT", &|data| *data.last_mut().unwrap() ^= 1);
    assert_both_reject(b"IDAT", &|data| data.truncate(data.len() / 2));
    assert_both_reject(b"IHDR", &|data| data[7] += 1);
    assert_both_reject(b"IHDR", &|data| data[3] += 1);
    assert_both_reject(b"IHDR", &|data| data[11] = 1);
}

#[test]
fn leaves_other_kinds_and_large_images_to_the_png_crate() {
    let (file, _) = encoded(40, 31, Filter::Adaptive, 60);
    for (at, value) in [(8, 16), (9, 3), (12, 1)] {
        let other = changed(&file, |name, data| {
            if name == b"IHDR" {
                data[at] = value;
            }
        });
        assert!(read(&other).is_none());
    }
    let bomb = changed(&file, |name, data| {
        if name == b"IHDR" {
            data[..8].copy_from_slice(&[0, 0, 0x40, 0, 0, 0, 0x40, 0]);
        }
    });
    let mut out = Vec::new();
    assert!(append(&bomb, &DecodeLimits::default(), &mut out).is_none());
    assert_eq!(
        out.capacity(),
        0,
        "memory was allocated for pixels that the file cannot contain"
    );
    let limits = DecodeLimits {
        max_side: 39,
        ..DecodeLimits::default()
    };
    assert!(append(&file, &limits, &mut out).is_none());
}
