//! Information that the page needs: models, classes, limits and available samples.

use axum::Json;
use axum::extract::State;
use rgby_common::labels::{HPA_CLASSES, about};
use rgby_imaging::CHANNELS;

use super::RestState;
use super::errors::HttpError;
use super::explain::MAX_GRID;
use super::predict::MAX_PREVIEW_SIDE;
use super::types::CommonErrors;
use super::v1_schema::{ClassInfo, ModelInfo, ServerInfo, UploadBounds};
use crate::{Model, metadata, upload_limits};

/// List models, limits and samples
#[utoipa::path(
    get, path = "/v1/about", tag = "images",
    responses((status = 200, description = "Models, limits, samples", body = ServerInfo), CommonErrors),
)]
pub(super) async fn server_info(
    State(state): State<RestState>,
) -> Result<Json<ServerInfo>, HttpError> {
    let service = &state.service;
    service.lifecycle().check_ready()?;
    let models = service.repository().newest();
    let limits = upload_limits();
    Ok(Json(ServerInfo {
        version: metadata::VERSION,
        models: models.iter().map(|model| model_info(model)).collect(),
        limits: UploadBounds {
            max_body: state.body_reader.limits().max_body,
            max_side: limits.max_side,
            max_pixels: limits.max_bytes,
            max_shown: MAX_PREVIEW_SIDE,
            max_grid: MAX_GRID,
            seconds: service.effective_timeout(None).as_secs_f64(),
        },
        samples: HPA_CLASSES.to_vec(),
        sample_stains: CHANNELS.to_vec(),
    }))
}

fn model_info(model: &Model) -> ModelInfo {
    let spec = model.spec();
    let classes = spec.classes.iter().zip(&spec.thresholds);
    let class = |(name, threshold): (&String, &f32)| ClassInfo {
        name: name.clone(),
        threshold: *threshold,
        about: about(name),
    };
    ModelInfo {
        name: model.name().to_owned(),
        version: model.version().to_owned(),
        arch: spec.arch.clone(),
        stains: spec.preprocess.stains(),
        size: spec.preprocess.size,
        classes: classes.map(class).collect(),
    }
}
