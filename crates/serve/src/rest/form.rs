//! Forms that hold an image: the fields of `/v1/predict` and `/v1/explain`.

use std::sync::Arc;
use std::time::Duration;

use axum::extract::multipart::MultipartError;
use axum::extract::{FromRequest, Multipart, Request};
use bytes::Bytes;

use super::Rest;
use super::infer::timeout;
use crate::http::ReadBody;
use crate::{Accepted, Model, ServeError, UploadFiles, WHOLE_NAME};

/// Most fields of a form: stains, and what a browser may add.
const MAX_FIELDS: usize = 80;

/// A form, read but not decoded.
pub(super) struct Received {
    pub(super) model: Arc<Model>,
    pub(super) files: UploadFiles,
    /// The value of the field that the route has beside the others.
    pub(super) option: Option<u32>,
    /// The time that the client gives.
    pub(super) timeout: Option<Duration>,
    pub(super) accepted: Accepted,
    pub(super) read: ReadBody,
}

impl Rest {
    /// Reads a form. `option` is the name of a field of this route's own, a whole number.
    pub(super) async fn receive(
        &self,
        request: Request,
        option: &'static str,
    ) -> Result<Received, ServeError> {
        let accepted = self.service.lifecycle().accept()?;
        let (parts, body) = request.into_parts();
        let timeout = timeout(&parts.headers)?;
        let read = self.bodies.read(&parts.headers, body).await?;
        // The form is taken apart in memory: reading it off the network has its own bounds.
        let request = Request::from_parts(parts, read.bytes.clone().into());
        let mut fields = Fields::read(request).await?;
        let name = fields.take_text("model")?;
        let version = fields.take_text("version")?;
        let name = name.map_or_else(|| self.service.repository().only(), Ok)?;
        let model = self.service.model(&name, version.as_deref())?;
        let (files, option) = fields.files(&model, option)?;
        Ok(Received {
            model,
            files,
            option,
            timeout,
            accepted,
            read,
        })
    }
}

/// Names and values.
struct Fields(Vec<(String, Bytes)>);

impl Fields {
    async fn read(request: Request) -> Result<Self, ServeError> {
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
        Ok(Self(fields))
    }

    fn take(&mut self, name: &str) -> Option<Bytes> {
        let at = self.0.iter().position(|(known, _)| known == name)?;
        Some(self.0.swap_remove(at).1)
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

    /// The image's files, and the field `option`. A stain of that name comes first.
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
        let wanted = stains.join(", ");
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
                    "the field `{name}` has no place here; there are either {wanted}, or \
                     {WHOLE_NAME} and channels, and further model, version, {option}"
                )))
            }
        }
    }

    fn take_stains(&mut self, stains: Vec<String>) -> Result<Vec<(String, Bytes)>, ServeError> {
        let wanted = stains.join(", ");
        let mut files = Vec::with_capacity(stains.len());
        for stain in stains {
            let Some(bytes) = self.take(&stain) else {
                return Err(ServeError::Invalid(format!(
                    "there is no file `{stain}`; give one for each of {wanted}, or one TIFF file \
                     with all of them as `{WHOLE_NAME}`"
                )));
            };
            files.push((stain, bytes));
        }
        Ok(files)
    }
}

/// What the stains are called in a file that holds them all.
fn channels(text: &str, stains: &[String]) -> Result<Vec<String>, ServeError> {
    let channels: Vec<String> = text.split(',').map(|name| name.trim().to_owned()).collect();
    if channels.len() == stains.len() && channels.iter().all(|name| !name.is_empty()) {
        return Ok(channels);
    }
    Err(ServeError::Invalid(format!(
        "the field `channels` must have {} names or numbers with commas between them: the \
         channels that are {}, in this order",
        stains.len(),
        stains.join(", ")
    )))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn channels_are_as_many_as_stains() {
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
