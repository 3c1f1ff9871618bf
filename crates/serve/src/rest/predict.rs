//! Images in, classes out: for people and scripts.

use axum::Json;
use axum::extract::{Request, State};
use base64::prelude::{BASE64_STANDARD, Engine as _};
use tokio::sync::oneshot;

use super::Rest;
use super::errors::Refusal;
use super::form::Received;
use super::types::InferErrors;
use super::v1_schema::{ClassPrediction, PredictForm, Prediction, ShownImage, ShownPlane};
use crate::{InferenceInput, Model, Parsed, Preview, ServeError, Upload};
use rgby_score::InferenceOutput;

/// Largest side of planes that come back, in pixels.
pub(super) const MAX_SHOWN: u32 = 1024;

/// Says which classes an image shows
///
/// A form with a file for each of the model's stains (`red`, `green`, `blue`, `yellow` unless the
/// model was trained on others), or one TIFF file with all of them as `image`. Two more fields say
/// which model answers where there are several: `model` and `version`.
#[utoipa::path(
    post, path = "/v1/predict", tag = "images",
    params(("timeout" = Option<String>, Header, description = "After what time the answer is of \
             no use: seconds, or a number with a unit: 250ms")),
    request_body(content = inline(PredictForm), content_type = "multipart/form-data"),
    responses((status = 200, description = "The classes", body = Prediction), InferErrors),
)]
pub(super) async fn predict(
    State(rest): State<Rest>,
    request: Request,
) -> Result<Json<Prediction>, Refusal> {
    Ok(Json(rest.predict(request).await?))
}

impl Rest {
    async fn predict(&self, request: Request) -> Result<Prediction, ServeError> {
        let Received {
            model,
            files,
            option,
            timeout,
            accepted: _accepted,
            read: _read,
        } = self.receive(request, "planes").await?;
        let mut upload = Upload::from(files);
        let mut shown = None;
        if let Some(side) = option {
            check_side(side)?;
            let (to, from) = oneshot::channel();
            upload = upload.show(side, to);
            shown = Some(from);
        }
        let parse = |_: &_| {
            Ok(Parsed {
                input: InferenceInput::Upload(upload),
                timeout: None,
                rest: (),
            })
        };
        let (answer, ()) = self.service.infer(&model, timeout, parse).await?;
        let mut prediction = prediction(&model, &answer);
        if let Some(shown) = shown {
            let lost = |_| ServeError::Failed("the planes were lost".into());
            prediction.image = Some(image(&model, &shown.await.map_err(lost)?));
        }
        Ok(prediction)
    }
}

fn check_side(side: u32) -> Result<(), ServeError> {
    if (1..=MAX_SHOWN).contains(&side) {
        return Ok(());
    }
    Err(ServeError::Invalid(format!(
        "the field `planes` is {side}; it must be 1 to {MAX_SHOWN}, the longest side of the planes \
         that come back, in pixels"
    )))
}

fn image(model: &Model, shown: &Preview) -> ShownImage {
    let stains = model.spec().preprocess.stains();
    let planes = stains.into_iter().zip(&shown.planes);
    ShownImage {
        width: shown.width,
        height: shown.height,
        planes: planes
            .map(|(stain, png)| ShownPlane {
                stain,
                png: BASE64_STANDARD.encode(png),
            })
            .collect(),
    }
}

fn prediction(model: &Model, answer: &InferenceOutput) -> Prediction {
    let spec = model.spec();
    let numbers = answer.probabilities.iter().zip(&spec.thresholds);
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
