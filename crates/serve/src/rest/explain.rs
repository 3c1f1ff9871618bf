//! Where a network looked: how its answer changes when a part of the image is hidden.
//!
//! [`hide_cell`] says how that is done and why.
//!
//! A row of the grid is one request to the queue. So an explanation never takes more of the
//! queue's places than a row has cells, others are served between its rows, and whoever waits for
//! it sees it grow.

use std::sync::Arc;
use std::time::Instant;

use axum::body::Body;
use axum::extract::{Request, State};
use axum::http::header;
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use futures_util::stream;

use super::Rest;
use super::errors::Refusal;
use super::form::Received;
use super::types::{ErrorBody, InferErrors};
use super::v1_schema::{ExplainForm, ExplanationLine, ExplanationRow, ExplanationStart};
use crate::{Accepted, Floats, InferenceInput, Model, Parsed, ServeError, Service, Trace, Upload};
use rgby_imaging::{Preprocess, hide_cell};
use rgby_score::model_metadata::ModelSpec;

/// Cells of a side where the form says nothing.
const GRID: u32 = 8;
/// Most cells of a side: four times that many squared are computed.
pub(super) const MAX_GRID: u32 = 16;

/// Says where the model looked
///
/// The form is that of `/v1/predict`. The image is divided into a grid, and scored once more for
/// each cell, with that cell black. The answer comes line by line: first what the model says of
/// the whole image, then a row of the grid a line: how much each class's probability falls where
/// the cell is hidden. If it breaks off, the last line is an error.
#[utoipa::path(
    post, path = "/v1/explain", tag = "images",
    params(("timeout" = Option<String>, Header, description = "After what time the whole \
             explanation is of no use: seconds, or a number with a unit: 250ms")),
    request_body(content = inline(ExplainForm), content_type = "multipart/form-data"),
    responses(
        (status = 200, description = "JSON, a line a row", body = ExplanationLine,
         content_type = "application/x-ndjson"),
        InferErrors
    ),
)]
pub(super) async fn explain(
    State(rest): State<Rest>,
    request: Request,
) -> Result<Response, Refusal> {
    let explanation = rest.explain(request).await?;
    let lines = stream::unfold(explanation, |mut explanation| async move {
        let line = explanation.next_line().await?;
        Some((line, explanation))
    });
    let content = [(header::CONTENT_TYPE, "application/x-ndjson")];
    Ok((content, Body::from_stream(lines)).into_response())
}

/// An explanation that is being computed. The server waits for it when it is stopped.
struct Explanation {
    service: Arc<Service>,
    model: Arc<Model>,
    image: Arc<Vec<f32>>,
    /// What the model says of the whole image.
    whole: Vec<f32>,
    /// Cells of a side.
    grid: usize,
    /// The row to be computed next; none before the first line.
    row: Option<usize>,
    deadline: Instant,
    trace: Trace,
    _accepted: Accepted,
}

impl Rest {
    /// Scores the whole image.
    async fn explain(&self, request: Request) -> Result<Explanation, ServeError> {
        let Received {
            model,
            files,
            option,
            timeout,
            accepted,
            read: _read,
        } = self.receive(request, "grid").await?;
        let grid = check_grid(option.unwrap_or(GRID), &model.spec().preprocess)?;
        let deadline = Instant::now() + self.service.time(timeout);
        let for_parse = model.clone();
        let parse = move |_: &_| {
            let image = InferenceInput::Upload(Upload::from(files)).prepare(&for_parse)?;
            Ok(Parsed {
                input: images(1, image.clone()),
                timeout: None,
                rest: Arc::new(image),
            })
        };
        let (answer, image) = self.service.infer(&model, timeout, parse).await?;
        Ok(Explanation {
            service: self.service.clone(),
            model,
            image,
            whole: answer.probabilities,
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
    let most = MAX_GRID.min(preprocess.size);
    if (1..=most).contains(&grid) {
        return Ok(grid as usize);
    }
    Err(ServeError::Invalid(format!(
        "the field `grid` is {grid}; it must be 1 to {most}, the cells of a side"
    )))
}

impl Explanation {
    /// The next line, `None` after the last.
    async fn next_line(&mut self) -> Option<Result<Bytes, serde_json::Error>> {
        let line = match self.row {
            None => {
                self.row = Some(0);
                self.start()
            }
            Some(row) if row < self.grid => {
                self.row = Some(row + 1);
                match self.falls(row).await {
                    Ok(falls) => ExplanationLine::Row(ExplanationRow { row, falls }),
                    Err(error) => {
                        self.row = Some(self.grid);
                        self.service.metrics().failed(error.cause());
                        let error = error.to_string();
                        ExplanationLine::Broken(ErrorBody { error })
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
            probabilities: self.whole.clone(),
        })
    }

    /// How much each probability falls for each cell of a row: `[cells][classes]`.
    async fn falls(&self, row: usize) -> Result<Vec<Vec<f32>>, ServeError> {
        let left = self.deadline.saturating_duration_since(Instant::now());
        let (image, grid) = (self.image.clone(), self.grid);
        let parse = move |spec: &ModelSpec| {
            let hidden = (0..grid).flat_map(|column| {
                let mut hidden = image.to_vec();
                hide_cell(&mut hidden, &spec.preprocess, grid, [row, column]);
                hidden
            });
            Ok(Parsed {
                input: images(grid, hidden.collect()),
                timeout: None,
                rest: (),
            })
        };
        // The handler, and with it the request's span, is over.
        let answer = self.service.infer(&self.model, Some(left), parse);
        let (answer, ()) = self.trace.around(answer).await?;
        let fall = |(whole, hidden): (&f32, &f32)| whole - hidden;
        let cells = answer.probabilities.chunks(self.whole.len().max(1));
        Ok(cells
            .map(|hidden| self.whole.iter().zip(hidden).map(fall).collect())
            .collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn grids_are_bounded_by_the_input() {
        let preprocess = Preprocess::new(&["red"], 5);
        assert_eq!(check_grid(5, &preprocess), Ok(5));
        for bad in [0, 6, 17] {
            assert_eq!(check_grid(bad, &preprocess).unwrap_err().cause(), "invalid");
        }
    }
}
