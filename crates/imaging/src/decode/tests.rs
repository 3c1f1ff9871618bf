//! Tests of the decoder: formats, limits and hostile files.

use image::{GrayImage, ImageBuffer, Luma, Rgb, RgbImage, RgbaImage};

use super::*;

fn encode(image: impl Into<DynamicImage>, format: ImageFormat) -> Vec<u8> {
    let mut out = Cursor::new(Vec::new());
    image.into().write_to(&mut out, format).unwrap();
    out.into_inner()
}

fn gray(width: u32, height: u32) -> GrayImage {
    GrayImage::from_fn(width, height, |x, y| Luma([(x * 7 + y * 13) as u8]))
}

fn decode_default(bytes: &[u8]) -> Result<Plane, DecodeError> {
    decode_plane(bytes, &DecodeLimits::default())
}

#[test]
fn gray_png_and_tiff_round_trip() {
    let image = gray(20, 10);
    for format in [ImageFormat::Png, ImageFormat::Tiff] {
        let plane = decode_default(&encode(image.clone(), format)).unwrap();
        assert_eq!((plane.width, plane.height), (20, 10));
        assert_eq!(&plane.data, image.as_raw());
    }
}

#[test]
fn sixteen_bits_are_rounded_to_eight() {
    let values = [0u16, 128, 129, 257, 300, 65_535];
    let image = ImageBuffer::<Luma<u16>, _>::from_raw(6, 1, values.to_vec()).unwrap();
    for format in [ImageFormat::Png, ImageFormat::Tiff] {
        let plane = decode_default(&encode(image.clone(), format)).unwrap();
        assert_eq!(plane.data, [0, 0, 1, 1, 1, 255]);
    }
}

#[test]
fn colour_images_become_their_brightest_channel() {
    let tinted = RgbImage::from_fn(32, 32, |x, _| Rgb([x as u8, 40 + x as u8 * 6, 3]));
    let plane = decode_default(&encode(tinted.clone(), ImageFormat::Jpeg)).unwrap();
    let worst = plane
        .data
        .iter()
        .zip(tinted.pixels())
        .map(|(a, p)| a.abs_diff(p[1]))
        .max();
    assert!(worst.unwrap() < 20, "{worst:?}");
}

#[test]
fn ignores_alpha_and_prefers_the_first_of_equal_channels() {
    let image = RgbaImage::from_fn(4, 4, |x, _| image::Rgba([x as u8, 3 - x as u8, 0, 255]));
    let plane = decode_default(&encode(image, ImageFormat::Png)).unwrap();
    assert_eq!(plane.data[..4], [0, 1, 2, 3]);
}

#[test]
fn distinguishes_empty_unknown_and_unsupported_files() {
    assert_eq!(decode_default(b""), Err(DecodeError::Empty));
    assert_eq!(decode_default(b"Id,Target\n"), Err(DecodeError::NotAnImage));
    assert_eq!(decode_default(&[0; 100]), Err(DecodeError::NotAnImage));
    let gif = decode_default(b"GIF89a\x01\x00\x01\x00").unwrap_err();
    assert_eq!(gif, DecodeError::Unsupported("GIF".into()));
}

#[test]
fn detects_truncation_in_each_format() {
    for format in [ImageFormat::Png, ImageFormat::Jpeg, ImageFormat::Tiff] {
        let bytes = encode(gray(64, 64), format);
        decode_default(&bytes).unwrap();
        for keep in [bytes.len() / 2, bytes.len() * 9 / 10] {
            let error = decode_default(&bytes[..keep]).unwrap_err();
            assert!(
                matches!(error, DecodeError::Damaged(_)),
                "{format:?} {keep}: {error:?}"
            );
        }
    }
}

#[test]
fn truncated_and_flipped_files_do_not_panic() {
    for format in [ImageFormat::Png, ImageFormat::Jpeg, ImageFormat::Tiff] {
        let bytes = encode(gray(16, 16), format);
        for at in 0..bytes.len() {
            let _ = decode_default(&bytes[..at]);
            let mut flipped = bytes.clone();
            flipped[at] ^= 0x55;
            let _ = decode_default(&flipped);
        }
    }
}

/// A small PNG whose header claims 60,000² pixels.
fn png_bomb() -> Vec<u8> {
    let mut bytes = encode(gray(1, 1), ImageFormat::Png);
    bytes[16..20].copy_from_slice(&60_000u32.to_be_bytes());
    bytes[20..24].copy_from_slice(&60_000u32.to_be_bytes());
    let crc = crc32(&bytes[12..29]);
    bytes[29..33].copy_from_slice(&crc.to_be_bytes());
    bytes
}

fn crc32(bytes: &[u8]) -> u32 {
    !bytes.iter().fold(!0u32, |crc, byte| {
        (0..8).fold(crc ^ u32::from(*byte), |c, _| {
            (c >> 1) ^ (0xEDB8_8320 & (c & 1).wrapping_neg())
        })
    })
}

#[test]
fn rejects_a_decompression_bomb_by_its_header() {
    let error = decode_default(&png_bomb()).unwrap_err();
    assert_eq!(
        error,
        DecodeError::TooLarge {
            width: 60_000,
            height: 60_000,
            limit: 16_384
        }
    );
    let wide = DecodeLimits {
        max_side: 100_000,
        ..DecodeLimits::default()
    };
    let error = decode_plane(&png_bomb(), &wide).unwrap_err();
    assert_eq!(error, DecodeError::TooManyBytes { limit: 1 << 30 });
}

/// Returns the range of the first chunk with that name, from its length to its CRC.
fn chunk(bytes: &[u8], name: [u8; 4]) -> std::ops::Range<usize> {
    let mut at = 8;
    loop {
        let length: [u8; 4] = bytes[at..at + 4].try_into().unwrap();
        let end = at + 12 + u32::from_be_bytes(length) as usize;
        if bytes[at + 4..at + 8] == name {
            return at..end;
        }
        at = end;
    }
}

fn assert_damaged(bytes: &[u8]) {
    let error = decode_default(bytes).unwrap_err();
    assert!(matches!(error, DecodeError::Damaged(_)), "{error:?}");
}

#[test]
fn detects_a_wrong_crc() {
    let bytes = encode(gray(16, 16), ImageFormat::Png);
    for name in [*b"IHDR", *b"IDAT"] {
        for back in 1..=4 {
            let mut wrong = bytes.clone();
            wrong[chunk(&bytes, name).end - back] ^= 1;
            assert_damaged(&wrong);
        }
    }
}

#[test]
fn detects_a_wrong_checksum_of_the_pixels() {
    let deep = ImageBuffer::<Luma<u16>, _>::from_fn(9, 9, |x, y| Luma([(x * 700 + y) as u16]));
    for image in [DynamicImage::from(gray(16, 16)), deep.into()] {
        let mut bytes = encode(image, ImageFormat::Png);
        decode_default(&bytes).unwrap();
        let pixels = chunk(&bytes, *b"IDAT");
        bytes[pixels.end - 5] ^= 1;
        let crc = crc32(&bytes[pixels.start + 4..pixels.end - 4]);
        bytes[pixels.end - 4..pixels.end].copy_from_slice(&crc.to_be_bytes());
        assert_damaged(&bytes);
    }
}

#[test]
fn rejects_fewer_pixels_than_the_header_claims() {
    let mut bytes = encode(gray(16, 16), ImageFormat::Png);
    bytes[20..24].copy_from_slice(&17u32.to_be_bytes());
    let crc = crc32(&bytes[12..29]);
    bytes[29..33].copy_from_slice(&crc.to_be_bytes());
    assert_damaged(&bytes);
}

#[derive(serde::Deserialize)]
struct PngGolden {
    width: u32,
    height: u32,
    cases: Vec<PngCase>,
}

#[derive(serde::Deserialize)]
struct PngCase {
    name: String,
    file: String,
    plane: Vec<u8>,
}

/// Generated by `tests/golden/png_kinds.py`.
#[test]
fn decodes_every_kind_of_png() {
    let text = include_str!("../../../../tests/golden/png_kinds.json");
    let golden: PngGolden = serde_json::from_str(text).unwrap();
    assert_eq!(golden.cases.len(), 26);
    for case in golden.cases {
        let digits = case.file.as_bytes().chunks(2);
        let byte = |pair| u8::from_str_radix(std::str::from_utf8(pair).unwrap(), 16).unwrap();
        let plane = decode_default(&digits.map(byte).collect::<Vec<u8>>()).unwrap();
        assert_eq!((plane.width, plane.height), (golden.width, golden.height));
        assert_eq!(plane.data, case.plane, "{}", case.name);
    }
}

#[test]
fn append_keeps_earlier_pixels_on_error() {
    let bytes = encode(gray(16, 16), ImageFormat::Png);
    let mut pixels = vec![1, 2, 3];
    let limits = DecodeLimits::default();
    append_plane(&bytes[..bytes.len() / 2], &limits, &mut pixels).unwrap_err();
    assert_eq!(pixels, [1, 2, 3]);
    append_plane(&bytes, &limits, &mut pixels).unwrap();
    assert_eq!(pixels[..3], [1, 2, 3]);
    assert_eq!(&pixels[3..], gray(16, 16).as_raw());
}

#[test]
fn each_limit_has_its_own_error() {
    let bytes = encode(gray(64, 64), ImageFormat::Png);
    let limits = DecodeLimits {
        max_side: 63,
        ..DecodeLimits::default()
    };
    assert!(matches!(
        decode_plane(&bytes, &limits),
        Err(DecodeError::TooLarge { .. })
    ));
    let limits = DecodeLimits {
        max_bytes: 4095,
        ..DecodeLimits::default()
    };
    assert!(matches!(
        decode_plane(&bytes, &limits),
        Err(DecodeError::TooManyBytes { .. })
    ));
    let limits = DecodeLimits {
        max_file_bytes: 10,
        ..DecodeLimits::default()
    };
    assert!(matches!(
        decode_plane(&bytes, &limits),
        Err(DecodeError::FileTooLarge { .. })
    ));
}

#[test]
fn rejects_floats_with_their_type() {
    let image = ImageBuffer::<Rgb<f32>, _>::from_pixel(4, 4, Rgb([0.5f32, 0.1, 0.2]));
    let error = decode_default(&encode(image, ImageFormat::Tiff)).unwrap_err();
    assert!(matches!(error, DecodeError::Unsupported(_)), "{error:?}");
    assert!(error.to_string().contains("32-bit floats"), "{error}");
}
