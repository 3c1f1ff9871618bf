//! Any bytes through the image decoder, alone and as a file of several channels, and what comes out
//! of it through preprocessing.
//!
//! Nothing may panic, hang or take more memory than the limits allow for.

#![no_main]

// Included, so that fuzzing builds neither Burn nor the rest of rgby.
#[path = "../../src/imaging/mod.rs"]
#[allow(dead_code, unused_imports)]
mod imaging;

use image::DynamicImage;
use imaging::{
    Augmentation, Crop, DecodeLimits, Planes, Preprocess, Preprocessor, Resize, decode_channels,
    decode_plane,
};
use libfuzzer_sys::fuzz_target;

const LIMITS: DecodeLimits = DecodeLimits {
    max_side: 1024,
    max_bytes: 1 << 22,
    max_file_bytes: 1 << 16,
};

fuzz_target!(|bytes: &[u8]| {
    check(bytes);
    check_channels(bytes);
    // Hardly any change of a PNG leaves its CRCs right.
    if let Some(mended) = with_right_crcs(bytes) {
        check(&mended);
    }
});

fn check(bytes: &[u8]) {
    // Most inputs are refused; how is of no interest here.
    let Ok(plane) = decode_plane(bytes, &LIMITS) else {
        return;
    };
    let (width, height) = (plane.width, plane.height);
    assert!(width.min(height) > 0 && width.max(height) <= LIMITS.max_side);
    assert_eq!(plane.data.len(), width as usize * height as usize);
    // The usual PNG goes a way of its own.
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

/// Channels by number and by a name that seeds have.
fn check_channels(bytes: &[u8]) {
    for wanted in [&["0"][..], &["3", "1", "0"], &["dapi"]] {
        let Ok(planes) = decode_channels(bytes, wanted, &LIMITS) else {
            continue;
        };
        assert!(planes.width.min(planes.height) > 0);
        assert!(planes.width.max(planes.height) <= LIMITS.max_side);
        assert_eq!(planes.channels, wanted.len());
        assert_eq!(planes.data.len(), planes.plane_len() * planes.channels);
    }
}

/// A PNG whose chunks all have the CRC that they should; `None` if there is no PNG.
fn with_right_crcs(bytes: &[u8]) -> Option<Vec<u8>> {
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
