//! Fuzzes the image decoder, for one and several channels, and preprocessing of its output.
//!
//! Nothing may panic, hang or need more memory than the limits allow.

#![no_main]

use image::DynamicImage;
use libfuzzer_sys::fuzz_target;
use rgby_imaging::{
    Augmentation, Crop, DecodeLimits, Planes, Preprocess, Preprocessor, Resize, decode_channels,
    decode_plane,
};

const LIMITS: DecodeLimits = DecodeLimits {
    max_side: 1024,
    max_bytes: 1 << 22,
    max_file_bytes: 1 << 16,
};

fuzz_target!(|bytes: &[u8]| {
    check(bytes);
    check_channels(bytes);
    // A mutated PNG rarely has valid CRCs.
    if let Some(png) = with_valid_crcs(bytes) {
        check(&png);
    }
});

fn check(bytes: &[u8]) {
    // Most inputs are refused; the reason is irrelevant here.
    let Ok(plane) = decode_plane(bytes, &LIMITS) else {
        return;
    };
    let (width, height) = (plane.width, plane.height);
    assert!(width.min(height) > 0 && width.max(height) <= LIMITS.max_side);
    assert_eq!(plane.data.len(), width as usize * height as usize);
    // 8-bit gray PNG files have their own decoder.
    if let Ok(DynamicImage::ImageLuma8(gray)) = image::load_from_memory(bytes) {
        assert!(plane.data == gray.into_raw());
    }
    let planes = Planes {
        width,
        height,
        channels: 1,
        data: plane.data,
    };
    let crop = Crop {
        share: 0.5,
        left: 0.3,
        top: 0.9,
    };
    let varied = Augmentation {
        crop: Some(crop),
        dihedral: bytes[bytes.len() / 2] % 8,
        gains: Vec::new(),
    };
    for filter in [Resize::Bilinear, Resize::Nearest, Resize::Skimage] {
        let mut preprocess = Preprocess::new(&["red"], 16);
        preprocess.resize = filter;
        let mut out = vec![f32::NAN; preprocess.input_len()];
        let preprocessor = Preprocessor::new(preprocess);
        for variation in [&Augmentation::default(), &varied] {
            preprocessor.prepare(&planes, variation, &mut out);
            assert!(out.iter().all(|x| (-1.001..=1.001).contains(x)));
        }
    }
}

/// Selects channels by number and by a name that occurs in the seeds.
fn check_channels(bytes: &[u8]) {
    for channels in [&["0"][..], &["3", "1", "0"], &["dapi"]] {
        let Ok(planes) = decode_channels(bytes, channels, &LIMITS) else {
            continue;
        };
        assert!(planes.width.min(planes.height) > 0);
        assert!(planes.width.max(planes.height) <= LIMITS.max_side);
        assert_eq!(planes.channels, channels.len());
        assert_eq!(planes.data.len(), planes.plane_len() * planes.channels);
    }
}

/// Returns a PNG with the CRCs of all chunks corrected; `None` if the bytes are not a PNG.
fn with_valid_crcs(bytes: &[u8]) -> Option<Vec<u8>> {
    let mut out = bytes.to_vec();
    let mut at = out.starts_with(b"\x89PNG\r\n\x1a\n").then_some(8)?;
    while let Some((length, rest)) = out[at..].split_first_chunk() {
        let end = (u32::from_be_bytes(*length) as usize).saturating_add(4);
        let Some((chunk, rest)) = rest.split_at_checked(end) else {
            break;
        };
        if rest.len() < 4 {
            break;
        }
        let crc = crc32fast::hash(chunk);
        at += 4 + end;
        out[at..at + 4].copy_from_slice(&crc.to_be_bytes());
        at += 4;
    }
    Some(out)
}
