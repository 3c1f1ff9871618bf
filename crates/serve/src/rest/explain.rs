//! The `/v1/explain` route: explains a prediction by occlusion.
//!
//! The probabilities are computed again with each part of the image hidden; see [`hide_cell`].
//!
//! Each row of the grid is one request to the queue. An explanation therefore occupies at most one
//! row of images in the queue, and other requests run between the rows. The client receives each
//! row as soon as it is finished.

use std::sync::Arc;
use std::time::Instant;

use axum::body::Body;
use axum::extract::{Request, State};
use axum::http::header;
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use futures_util::stream;

use super::RestState;
use super::errors::HttpError;
use super::form::ParsedForm;
use super::types::{ErrorBody, InferErrors};
use super::v1_schema::{ExplainForm, ExplanationLine, ExplanationRow, ExplanationStart};
use crate::{
    AcceptedRequest, Floats, InferenceInput, Model, ParsedRequest, ServeError, Service, Trace,
    Upload,
};
use rgby_imaging::{Preprocess, hide_cell};
use rgby_score::model_metadata::ModelSpec;

/// Default number of cells per side.
const DEFAULT_GRID: u32 = 8;
/// Maximum number of cells per side. The number of images grows with its square.
pub(super) const MAX_GRID: u32 = 16;

/// Explain a prediction
///
/// The form is the one of `/v1/predict`. The image is divided into a grid and classified again for
/// each cell, with that cell black. The response is streamed line by line. The first line is the
/// prediction for the complete image. Each further line is a row of the grid: the decrease of each
/// class's probability when the cell is hidden. If the explanation fails, the last line is an error.
#[utoipa::path(
    post, path = "/v1/explain", tag = "images",
    params(("timeout" = Option<String>, Header, description = "Maximum processing time of the \
             explanation: seconds, or a number with a unit, for example 250ms")),
    request_body(content = inline(ExplainForm), content_type = "multipart/form-data"),
    responses(
        (status = 200, description = "JSON lines", body = ExplanationLine,
         content_type = "application/x-ndjson"),
        InferErrors
    ),
)]
pub(super) async fn explain(
    State(state): State<RestState>,
    request: Request,
) -> Result<Response, HttpError> {
    let explanation = state.start_explanation(request).await?;
    let lines = stream::unfold(explanation, |mut explanation| async move {
        let line = explanation.next_line().await?;
        Some((line, explanation))
    });
    let headers = [(header::CONTENT_TYPE, "application/x-ndjson")];
    Ok((headers, Body::from_stream(lines)).into_response())
}

/// An explanation in progress. A shutdown waits for it.
struct Explanation {
    service: Arc<Service>,
    model: Arc<Model>,
    /// The network's input, `[C, S, S]`.
    image: Arc<Vec<f32>>,
    /// Probabilities of the complete image, one per class.
    baseline: Vec<f32>,
    /// Cells per side.
    grid: usize,
    /// The next row; `None` before the first line.
    row: Option<usize>,
    deadline: Instant,
    trace: Trace,
    _accepted: AcceptedRequest,
}

impl RestState {
    /// Runs inference on the complete image.
    async fn start_explanation(&self, request: Request) -> Result<Explanation, ServeError> {
        let ParsedForm {
            model,
            files,
            option,
            timeout,
            accepted,
            body: _body,
        } = self.read_form(request, "grid").await?;
        let grid = check_grid(option.unwrap_or(DEFAULT_GRID), &model.spec().preprocess)?;
        let deadline = Instant::now() + self.service.effective_timeout(timeout);
        let model_for_parse = model.clone();
        let parse = move |_: &_| {
            let image = InferenceInput::Upload(Upload::from(files)).prepare(&model_for_parse)?;
            Ok(ParsedRequest {
                input: images(1, image.clone()),
                timeout: None,
                context: Arc::new(image),
            })
        };
        let (output, image) = self.service.infer(&model, timeout, parse).await?;
        Ok(Explanation {
            service: self.service.clone(),
            model,
            image,
            baseline: output.probabilities,
            grid,
            row: None,
            deadline,
            trace: Trace::current(),
            _accepted: accepted,
        })
    }
}

fn images(count: usize, values: Vec<f32>) -> InferenceInput {
    InferenceInput::Images {
        count,
        values: Floats::Values(values),
    }
}

fn check_grid(grid: u32, preprocess: &Preprocess) -> Result<usize, ServeError> {
    let max = MAX_GRID.min(preprocess.size);
    if (1..=max).contains(&grid) {
        return Ok(grid as usize);
    }
    Err(ServeError::Invalid(format!(
        "the field `grid` is {grid}; it must be 1 to {max}, the number of cells per side"
    )))
}

impl Explanation {
    /// Returns the next line; `None` after the last one.
    async fn next_line(&mut self) -> Option<Result<Bytes, serde_json::Error>> {
        let line = match self.row {
            None => {
                self.row = Some(0);
                self.start()
            }
            Some(row) if row < self.grid => {
                self.row = Some(row + 1);
                match self.decreases(row).await {
                    Ok(falls) => ExplanationLine::Row(ExplanationRow { row, falls }),
                    Err(error) => {
                        self.row = Some(self.grid);
                        self.service.metrics().count_error(error.cause());
                        let error = error.to_string();
                        ExplanationLine::Error(ErrorBody { error })
                    }
                }
            }
            Some(_) => return None,
        };
        let line = serde_json::to_vec(&line).map(|mut line| {
            line.push(b'\n');
            line.into()
        });
        Some(line)
    }

    fn start(&self) -> ExplanationLine {
        ExplanationLine::Start(ExplanationStart {
            model_name: self.model.name().to_owned(),
            model_version: self.model.version().to_owned(),
            grid: self.grid,
            classes: self.model.spec().classes.clone(),
            probabilities: self.baseline.clone(),
        })
    }

    /// Returns the decrease of each probability for each cell of a row: `[cells][classes]`.
    async fn decreases(&self, row: usize) -> Result<Vec<Vec<f32>>, ServeError> {
        let left = self.deadline.saturating_duration_since(Instant::now());
        let (image, grid) = (self.image.clone(), self.grid);
        let parse = move |spec: &ModelSpec| {
            let hidden = (0..grid).flat_map(|column| {
                let mut hidden = image.to_vec();
                hide_cell(&mut hidden, &spec.preprocess, grid, [row, column]);
                hidden
            });
            Ok(ParsedRequest {
                input: images(grid, hidden.collect()),
                timeout: None,
                context: (),
            })
        };
        // The body is streamed after the handler has returned, outside of the request's trace.
        let output = self.service.infer(&self.model, Some(left), parse);
        let (output, ()) = self.trace.scope(output).await?;
        let decrease = |(baseline, hidden): (&f32, &f32)| baseline - hidden;
        let cells = output.probabilities.chunks(self.baseline.len().max(1));
        Ok(cells
            .map(|hidden| self.baseline.iter().zip(hidden).map(decrease).collect())
            .collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn grids_are_limited_by_the_input_size() {
        let preprocess = Preprocess::new(&["red"], 5);
        assert_eq!(check_grid(5, &preprocess), Ok(5));
        for bad in [0, 6, 17] {
            assert_eq!(check_grid(bad, &preprocess).unwrap_err().cause(), "invalid");
        }
    }
}
