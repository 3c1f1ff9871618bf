//! The `/v1/predict` route: classifies an uploaded image.

use axum::Json;
use axum::extract::{Request, State};
use base64::prelude::{BASE64_STANDARD, Engine as _};
use tokio::sync::oneshot;

use super::RestState;
use super::errors::HttpError;
use super::form::ParsedForm;
use super::types::InferErrors;
use super::v1_schema::{ClassPrediction, ImagePreview, PlanePreview, PredictForm, Prediction};
use crate::{InferenceInput, Model, ParsedRequest, Preview, ServeError, Upload};
use rgby_score::InferenceOutput;

/// Maximum side of a preview in pixels.
pub(super) const MAX_PREVIEW_SIDE: u32 = 1024;

/// Classify an image
///
/// The form has one file per stain of the model, or one TIFF file with all stains as `image`. The
/// stains are `red`, `green`, `blue` and `yellow` unless the model was trained on others. The fields
/// `model` and `version` select the model if several are loaded.
#[utoipa::path(
    post, path = "/v1/predict", tag = "images",
    params(("timeout" = Option<String>, Header, description = "Maximum processing time: seconds, \
             or a number with a unit, for example 250ms")),
    request_body(content = inline(PredictForm), content_type = "multipart/form-data"),
    responses((status = 200, description = "The prediction", body = Prediction), InferErrors),
)]
pub(super) async fn predict(
    State(state): State<RestState>,
    request: Request,
) -> Result<Json<Prediction>, HttpError> {
    Ok(Json(state.predict(request).await?))
}

impl RestState {
    async fn predict(&self, request: Request) -> Result<Prediction, ServeError> {
        let ParsedForm {
            model,
            files,
            option,
            timeout,
            accepted: _accepted,
            body: _body,
        } = self.read_form(request, "planes").await?;
        let mut upload = Upload::from(files);
        let mut preview = None;
        if let Some(side) = option {
            check_side(side)?;
            let (sender, receiver) = oneshot::channel();
            upload = upload.with_preview(side, sender);
            preview = Some(receiver);
        }
        let parse = |_: &_| {
            Ok(ParsedRequest {
                input: InferenceInput::Upload(upload),
                timeout: None,
                context: (),
            })
        };
        let (output, ()) = self.service.infer(&model, timeout, parse).await?;
        let mut prediction = prediction(&model, &output);
        if let Some(preview) = preview {
            let missing = |_| ServeError::Failed("the preview was not created".into());
            prediction.image = Some(image(&model, &preview.await.map_err(missing)?));
        }
        Ok(prediction)
    }
}

fn check_side(side: u32) -> Result<(), ServeError> {
    if (1..=MAX_PREVIEW_SIDE).contains(&side) {
        return Ok(());
    }
    Err(ServeError::Invalid(format!(
        "the field `planes` is {side}; it must be 1 to {MAX_PREVIEW_SIDE}, the maximum side of the \
         previews in pixels"
    )))
}

fn image(model: &Model, preview: &Preview) -> ImagePreview {
    let stains = model.spec().preprocess.stains();
    let planes = stains.into_iter().zip(&preview.planes);
    ImagePreview {
        width: preview.width,
        height: preview.height,
        planes: planes
            .map(|(stain, png)| PlanePreview {
                stain,
                png: BASE64_STANDARD.encode(png),
            })
            .collect(),
    }
}

fn prediction(model: &Model, output: &InferenceOutput) -> Prediction {
    let spec = model.spec();
    let numbers = output.probabilities.iter().zip(&spec.thresholds);
    let classes = spec.classes.iter().zip(numbers).enumerate();
    let classes: Vec<_> = classes
        .map(
            |(index, (name, (probability, threshold)))| ClassPrediction {
                index,
                name: name.clone(),
                probability: *probability,
                threshold: *threshold,
                present: probability >= threshold,
            },
        )
        .collect();
    let present = classes.iter().filter(|class| class.present);
    Prediction {
        model_name: model.name().to_owned(),
        model_version: model.version().to_owned(),
        predicted: present.map(|class| class.name.clone()).collect(),
        classes,
        image: None,
    }
}
