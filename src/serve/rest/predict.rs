//! Images in, classes out: for people and scripts.

use axum::Json;
use axum::extract::multipart::MultipartError;
use axum::extract::{FromRequest, Multipart, Request, State};
use bytes::Bytes;

use super::Rest;
use super::errors::Refusal;
use super::infer::timeout;
use super::types::{ClassPrediction, InferErrors, Prediction, Upload};
use crate::score::Answer;
use crate::serve::{Input, Model, Parsed, ServeError};

/// Most fields of a form: stains, and what a browser may add.
const MAX_FIELDS: usize = 80;

/// Says which classes an image shows
///
/// A form with a file for each of the model's stains (`red`, `green`, `blue`, `yellow` unless the
/// model was trained on others). Two more fields say which model answers where there are several:
/// `model` and `version`.
#[utoipa::path(
    post, path = "/v1/predict", tag = "images",
    params(("timeout" = Option<String>, Header, description = "After what time the answer is of \
             no use: seconds, or a number with a unit: 250ms")),
    request_body(content = inline(Upload), content_type = "multipart/form-data"),
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
        let _accepted = self.service.lifecycle().accept()?;
        let (parts, body) = request.into_parts();
        let timeout = timeout(&parts.headers)?;
        let read = self.bodies.read(&parts.headers, body).await?;
        // The form is taken apart in memory: reading it off the network has its own bounds.
        let request = Request::from_parts(parts, read.bytes.clone().into());
        let mut fields = fields(request).await?;
        let name = take(&mut fields, "model").map(text).transpose()?;
        let version = take(&mut fields, "version").map(text).transpose()?;
        let name = name.map_or_else(|| self.service.repository().only(), Ok)?;
        let model = self.service.model(&name, version.as_deref())?;
        let files = files(fields, &model)?;
        let parse = |_: &_| {
            Ok(Parsed {
                input: Input::Files(files),
                timeout: None,
                rest: (),
            })
        };
        let (answer, ()) = self.service.infer(&model, timeout, parse).await?;
        Ok(prediction(&model, &answer))
    }
}

/// The fields of a form.
async fn fields(request: Request) -> Result<Vec<(String, Bytes)>, ServeError> {
    let form = Multipart::from_request(request, &()).await;
    let mut form = form.map_err(|error| {
        let error = error.body_text();
        ServeError::Unsupported(format!("send a form, multipart/form-data: {error}"))
    })?;
    let broken = |error: MultipartError| {
        ServeError::Invalid(format!("the form cannot be read: {}", error.body_text()))
    };
    let mut fields: Vec<(String, Bytes)> = Vec::new();
    while let Some(field) = form.next_field().await.map_err(broken)? {
        let name = field.name().unwrap_or_default().to_owned();
        if fields.iter().any(|(known, _)| *known == name) {
            return Err(ServeError::Invalid(format!(
                "the field `{name}` is there twice"
            )));
        }
        fields.push((name, field.bytes().await.map_err(broken)?));
        if fields.len() > MAX_FIELDS {
            let message = format!("the form has more than {MAX_FIELDS} fields");
            return Err(ServeError::Invalid(message));
        }
    }
    Ok(fields)
}

fn take(fields: &mut Vec<(String, Bytes)>, name: &str) -> Option<Bytes> {
    let at = fields.iter().position(|(known, _)| known == name)?;
    Some(fields.swap_remove(at).1)
}

fn text(bytes: Bytes) -> Result<String, ServeError> {
    let text = String::from_utf8(bytes.into());
    text.map_err(|_| ServeError::Invalid("`model` and `version` must be text".into()))
}

/// The files of the model's stains, in their order.
fn files(
    mut fields: Vec<(String, Bytes)>,
    model: &Model,
) -> Result<Vec<(String, Bytes)>, ServeError> {
    let stains = model.spec().preprocess.stains();
    let wanted = stains.join(", ");
    let mut files = Vec::with_capacity(stains.len());
    for stain in stains {
        let Some(bytes) = take(&mut fields, &stain) else {
            let message = format!("there is no file `{stain}`; give one for each of {wanted}");
            return Err(ServeError::Invalid(message));
        };
        files.push((stain, bytes));
    }
    match fields.first() {
        None => Ok(files),
        Some((name, _)) => Err(ServeError::Invalid(format!(
            "the field `{name}` is none of {wanted}, model, version"
        ))),
    }
}

fn prediction(model: &Model, answer: &Answer) -> Prediction {
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
    }
}
