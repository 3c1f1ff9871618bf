//! Parses image upload forms: the fields of `/v1/predict` and `/v1/explain`.

use std::sync::Arc;
use std::time::Duration;

use axum::extract::multipart::MultipartError;
use axum::extract::{FromRequest, Multipart, Request};
use bytes::Bytes;

use super::RestState;
use super::infer::timeout;
use crate::http::ReadBody;
use crate::{AcceptedRequest, Model, ServeError, UploadFiles, WHOLE_NAME};

/// Maximum number of fields of a form.
const MAX_FIELDS: usize = 80;

/// A form whose images are not decoded yet.
pub(super) struct ParsedForm {
    pub(super) model: Arc<Model>,
    pub(super) files: UploadFiles,
    /// Value of the field that is specific to the route.
    pub(super) option: Option<u32>,
    /// The client's timeout.
    pub(super) timeout: Option<Duration>,
    pub(super) accepted: AcceptedRequest,
    pub(super) body: ReadBody,
}

impl RestState {
    /// Reads a form. `option` is the name of an integer field that is specific to the route.
    pub(super) async fn read_form(
        &self,
        request: Request,
        option: &'static str,
    ) -> Result<ParsedForm, ServeError> {
        let accepted = self.service.lifecycle().accept()?;
        let (parts, body) = request.into_parts();
        let timeout = timeout(&parts.headers)?;
        let body = self.body_reader.read(&parts.headers, body).await?;
        // Parsed in memory, because reading from the network has its own limits.
        let request = Request::from_parts(parts, body.bytes.clone().into());
        let mut fields = FormFields::read(request).await?;
        let name = fields.take_text("model")?;
        let version = fields.take_text("version")?;
        let name = name.map_or_else(|| self.service.repository().only_model(), Ok)?;
        let model = self.service.model(&name, version.as_deref())?;
        let (files, option) = fields.files(&model, option)?;
        Ok(ParsedForm {
            model,
            files,
            option,
            timeout,
            accepted,
            body,
        })
    }
}

/// Names and values of a form's fields.
struct FormFields(Vec<(String, Bytes)>);

impl FormFields {
    async fn read(request: Request) -> Result<Self, ServeError> {
        let form = Multipart::from_request(request, &()).await;
        let mut form = form.map_err(|error| {
            let error = error.body_text();
            ServeError::Unsupported(format!(
                "the body is not a form; send multipart/form-data: {error}"
            ))
        })?;
        let malformed = |error: MultipartError| {
            ServeError::Invalid(format!("cannot read the form: {}", error.body_text()))
        };
        let mut fields: Vec<(String, Bytes)> = Vec::new();
        while let Some(field) = form.next_field().await.map_err(malformed)? {
            let name = field.name().unwrap_or_default().to_owned();
            if fields.iter().any(|(known, _)| *known == name) {
                return Err(ServeError::Invalid(format!(
                    "the field `{name}` appears twice"
                )));
            }
            fields.push((name, field.bytes().await.map_err(malformed)?));
            if fields.len() > MAX_FIELDS {
                let message = format!("the form has more than {MAX_FIELDS} fields");
                return Err(ServeError::Invalid(message));
            }
        }
        Ok(Self(fields))
    }

    fn take(&mut self, name: &str) -> Option<Bytes> {
        let index = self.0.iter().position(|(known, _)| known == name)?;
        Some(self.0.swap_remove(index).1)
    }

    fn take_text(&mut self, name: &str) -> Result<Option<String>, ServeError> {
        let text = self.take(name).map(|bytes| String::from_utf8(bytes.into()));
        let text = text.transpose();
        text.map_err(|_| ServeError::Invalid(format!("the field `{name}` must be text")))
    }

    fn take_number(&mut self, name: &str) -> Result<Option<u32>, ServeError> {
        let text = self.take_text(name)?;
        let number = text.map(|text| text.trim().parse());
        let number = number.transpose();
        number
            .map_err(|_| ServeError::Invalid(format!("the field `{name}` must be a whole number")))
    }

    /// Returns the image's files and the value of the field `option`. A stain of the same name as a
    /// field takes precedence.
    fn files(
        mut self,
        model: &Model,
        option: &'static str,
    ) -> Result<(UploadFiles, Option<u32>), ServeError> {
        let stains = model.spec().preprocess.stains();
        let is_stain = |name: &str| stains.iter().any(|stain| stain == name);
        let number = if is_stain(option) {
            None
        } else {
            self.take_number(option)?
        };
        let whole = if is_stain(WHOLE_NAME) {
            None
        } else {
            self.take(WHOLE_NAME)
        };
        let stain_names = stains.join(", ");
        let files = match whole {
            Some(bytes) => {
                let channels = match self.take_text("channels")? {
                    Some(text) => channels(&text, &stains)?,
                    None => stains.clone(),
                };
                UploadFiles::Whole {
                    bytes,
                    stains,
                    channels,
                }
            }
            None => UploadFiles::Stains(self.take_stains(stains)?),
        };
        match self.0.first() {
            None => Ok((files, number)),
            Some((name, _)) => {
                let name: String = name.chars().take(64).collect();
                Err(ServeError::Invalid(format!(
                    "unexpected field `{name}`; the fields are either {stain_names}, or \
                     {WHOLE_NAME} and channels; and optionally model, version, {option}"
                )))
            }
        }
    }

    fn take_stains(&mut self, stains: Vec<String>) -> Result<Vec<(String, Bytes)>, ServeError> {
        let stain_names = stains.join(", ");
        let mut files = Vec::with_capacity(stains.len());
        for stain in stains {
            let Some(bytes) = self.take(&stain) else {
                return Err(ServeError::Invalid(format!(
                    "the form has no file `{stain}`; send one file for each of {stain_names}, or \
                     one TIFF file with all of them as `{WHOLE_NAME}`"
                )));
            };
            files.push((stain, bytes));
        }
        Ok(files)
    }
}

/// Parses the field `channels`: the channel of each stain in a file with all stains.
fn channels(text: &str, stains: &[String]) -> Result<Vec<String>, ServeError> {
    let channels: Vec<String> = text.split(',').map(|name| name.trim().to_owned()).collect();
    if channels.len() == stains.len() && channels.iter().all(|name| !name.is_empty()) {
        return Ok(channels);
    }
    Err(ServeError::Invalid(format!(
        "the field `channels` must have {} names or indices, separated by commas: the channels of \
         {}, in this order",
        stains.len(),
        stains.join(", ")
    )))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn there_must_be_one_channel_per_stain() {
        let stains = ["red".to_owned(), "blue".to_owned()];
        assert_eq!(
            channels("2, DAPI", &stains),
            Ok(vec!["2".into(), "DAPI".into()])
        );
        for bad in ["", "2", "1,", ",", "1,2,3"] {
            assert_eq!(
                channels(bad, &stains).unwrap_err().cause(),
                "invalid",
                "{bad}"
            );
        }
    }
}
