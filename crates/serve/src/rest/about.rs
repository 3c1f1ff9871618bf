//! What the page has to know before it asks: models, classes, limits, and samples to try.

use axum::Json;
use axum::extract::rejection::PathRejection;
use axum::extract::{Path, State};
use axum::http::header;
use axum::response::{IntoResponse, Response};
use image::GrayImage;

use super::Rest;
use super::errors::{Refusal, unreadable_path};
use super::explain::MAX_GRID;
use super::predict::MAX_SHOWN;
use super::types::{LookErrors, SampleErrors};
use super::v1_schema::{About, AboutClass, AboutModel, UploadBounds};
use crate::{Model, ServeError, gray_png, metadata, upload_limits};
use rgby_common::labels::{HPA_CLASSES, about};
use rgby_imaging::CHANNELS;
use rgby_synth::{SynthConfig, sample};

/// What this server offers to people
#[utoipa::path(
    get, path = "/v1/about", tag = "images",
    responses((status = 200, description = "Models, limits, samples", body = About), LookErrors),
)]
pub(super) async fn about_server(State(rest): State<Rest>) -> Result<Json<About>, Refusal> {
    let service = &rest.service;
    service.lifecycle().check_ready()?;
    let models = service.repository().newest();
    let limits = upload_limits();
    Ok(Json(About {
        version: metadata::VERSION,
        models: models.iter().map(|model| about_model(model)).collect(),
        limits: UploadBounds {
            max_body: rest.bodies.limits().max_body,
            max_side: limits.max_side,
            max_pixels: limits.max_bytes,
            max_shown: MAX_SHOWN,
            max_grid: MAX_GRID,
            seconds: service.time(None).as_secs_f64(),
        },
        samples: HPA_CLASSES.to_vec(),
        sample_stains: CHANNELS.to_vec(),
    }))
}

fn about_model(model: &Model) -> AboutModel {
    let spec = model.spec();
    let classes = spec.classes.iter().zip(&spec.thresholds);
    let class = |(name, threshold): (&String, &f32)| AboutClass {
        name: name.clone(),
        threshold: *threshold,
        about: about(name),
    };
    AboutModel {
        name: model.name().to_owned(),
        version: model.version().to_owned(),
        arch: spec.arch.clone(),
        stains: spec.preprocess.stains(),
        size: spec.preprocess.size,
        classes: classes.map(class).collect(),
    }
}

/// Draws a stain of a synthetic sample
///
/// A cartoon of cells with the protein where one of the 28 classes says that it is.
#[utoipa::path(
    get, path = "/v1/samples/{class}/{file}", tag = "images",
    params(
        ("class" = String, Path, description = "Number of the class, 0 to 27"),
        ("file" = String, Path, description = "`red.png`, `green.png`, `blue.png`, `yellow.png`"),
    ),
    responses(
        (status = 200, description = "8-bit gray, 512×512", body = Vec<u8>, content_type = "image/png"),
        SampleErrors,
    ),
)]
pub(super) async fn draw(
    State(rest): State<Rest>,
    path: Result<Path<(String, String)>, PathRejection>,
) -> Result<Response, Refusal> {
    let Path((class, file)) = path.map_err(unreadable_path)?;
    let (class, stain) = find(&class, &file)?;
    let _accepted = rest.service.lifecycle().accept()?;
    let png = rest.service.work(move || drawn(class, stain)).await?;
    // The same for ever, but not between two versions of this program.
    let headers = [
        (header::CONTENT_TYPE, "image/png"),
        (header::CACHE_CONTROL, "private, max-age=3600"),
    ];
    Ok((headers, png).into_response())
}

/// The class's number and the stain's.
fn find(class: &str, file: &str) -> Result<(u16, usize), ServeError> {
    let number: Option<u16> = class.parse().ok();
    let number = number.filter(|number| usize::from(*number) < HPA_CLASSES.len());
    let stain = file.strip_suffix(".png");
    let stain = stain.and_then(|name| CHANNELS.iter().position(|known| *known == name));
    number.zip(stain).ok_or_else(|| {
        ServeError::Unknown(format!(
            "there is no such sample; there are /v1/samples/0/red.png to /v1/samples/{}/{}.png",
            HPA_CLASSES.len() - 1,
            CHANNELS[CHANNELS.len() - 1]
        ))
    })
}

fn drawn(class: u16, stain: usize) -> Result<Vec<u8>, ServeError> {
    let failed = |what: String| ServeError::Failed(format!("the sample cannot be drawn: {what}"));
    let config = SynthConfig {
        classes: vec![class],
        ..SynthConfig::default()
    };
    let planes = sample(&config, 0)
        .map_err(|error| failed(error.to_string()))?
        .planes;
    let plane = planes.plane(stain).map(<[u8]>::to_vec);
    let plane = plane.and_then(|plane| GrayImage::from_raw(planes.width, planes.height, plane));
    gray_png(&plane.ok_or_else(|| failed("it has no such stain".into()))?)
}
