//! Synthetic sample images for the page.

use axum::extract::rejection::PathRejection;
use axum::extract::{Path, State};
use axum::http::header;
use axum::response::{IntoResponse, Response};
use image::GrayImage;
use rgby_common::labels::HPA_CLASSES;
use rgby_imaging::CHANNELS;
use rgby_synth::SynthConfig;

use super::RestState;
use super::errors::{HttpError, path_error};
use super::types::SampleErrors;
use crate::{ServeError, gray_png};

/// Return one stain of a synthetic sample
///
/// A drawing of cells in which the protein is in the compartment of one of the 28 classes.
#[utoipa::path(
    get, path = "/v1/samples/{class}/{file}", tag = "images",
    params(
        ("class" = String, Path, description = "Class number, 0 to 27"),
        ("file" = String, Path, description = "`red.png`, `green.png`, `blue.png` or `yellow.png`"),
    ),
    responses(
        (status = 200, description = "8-bit gray, 512×512", body = Vec<u8>, content_type = "image/png"),
        SampleErrors,
    ),
)]
pub(super) async fn sample(
    State(state): State<RestState>,
    path: Result<Path<(String, String)>, PathRejection>,
) -> Result<Response, HttpError> {
    let Path((class, file)) = path.map_err(path_error)?;
    let (class, stain) = find(&class, &file)?;
    let _accepted = state.service.lifecycle().accept()?;
    let png = state.service.run_on_preparer(move || draw(class, stain));
    let png = png.await?;
    // Cached for an hour only, because another version of the program may draw it differently.
    let headers = [
        (header::CONTENT_TYPE, "image/png"),
        (header::CACHE_CONTROL, "private, max-age=3600"),
    ];
    Ok((headers, png).into_response())
}

/// Returns the indices of class and stain.
fn find(class: &str, file: &str) -> Result<(u16, usize), ServeError> {
    let index: Option<u16> = class.parse().ok();
    let index = index.filter(|index| usize::from(*index) < HPA_CLASSES.len());
    let stain = file.strip_suffix(".png");
    let stain = stain.and_then(|name| CHANNELS.iter().position(|known| *known == name));
    index.zip(stain).ok_or_else(|| {
        ServeError::Unknown(format!(
            "unknown sample; the samples are /v1/samples/0/red.png to /v1/samples/{}/{}.png",
            HPA_CLASSES.len() - 1,
            CHANNELS[CHANNELS.len() - 1]
        ))
    })
}

fn draw(class: u16, stain: usize) -> Result<Vec<u8>, ServeError> {
    let failed = |reason: String| ServeError::Failed(format!("cannot draw the sample: {reason}"));
    let config = SynthConfig {
        classes: vec![class],
        ..SynthConfig::default()
    };
    let planes = rgby_synth::sample(&config, 0)
        .map_err(|error| failed(error.to_string()))?
        .planes;
    let plane = planes.plane(stain).map(<[u8]>::to_vec);
    let plane = plane.and_then(|plane| GrayImage::from_raw(planes.width, planes.height, plane));
    gray_png(&plane.ok_or_else(|| failed("the sample has no such stain".into()))?)
}
