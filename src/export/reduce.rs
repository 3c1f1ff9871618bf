//! A model of lower precision, made of a float32 one.

use std::path::Path;

use super::{ExportError, Inputs, open_session};
use crate::graph::ModelProto;
use crate::graph::float16::to_float16;
use crate::graph::folding::fold_into_convolutions;
use crate::graph::quantize::{QuantizationPlan, ValueRange, plan, quantize, range_observer};
use crate::score::Runtime;

/// What became of a model, as one sentence.
pub(super) type Reduced = (ModelProto, String);

/// The model in float16.
///
/// # Errors
///
/// [`ExportError::Graph`].
pub(super) fn to_fp16(model: &ModelProto) -> Result<Reduced, ExportError> {
    let mut model = model.clone();
    let graph = model.graph.mut_or_insert_default();
    let folded = fold_into_convolutions(graph)?;
    let halved = to_float16(graph)?;
    let clamped = match halved.clamped {
        0 => String::new(),
        count => format!(", {count} weights beyond 65504 clamped"),
    };
    let summary = format!(
        "{folded} nodes folded into convolutions{clamped}, in float32: {}",
        halved.float32_operators.join(", ")
    );
    Ok((model, summary))
}

/// The model in 8-bit integers, by the least and greatest numbers that each activation takes on
/// `inputs`.
///
/// # Errors
///
/// [`ExportError::NeedsImages`] for inputs that are made up; no image can be read, or an activation
/// is not finite.
pub(super) fn to_int8(
    model: &ModelProto,
    inputs: &Inputs,
    runtime: Runtime,
) -> Result<Reduced, ExportError> {
    if inputs.are_made_up() {
        return Err(ExportError::NeedsImages);
    }
    let mut model = model.clone();
    let graph = model.graph.mut_or_insert_default();
    let folded = fold_into_convolutions(graph)?;
    let plan = plan(graph)?;
    let ranges = calibrate(&model, &plan, inputs, runtime)?;
    quantize(model.graph.mut_or_insert_default(), &plan, &ranges)?;
    let summary = format!(
        "{folded} nodes folded into convolutions, {} layers and {} activations in 8 bits, by \
         least and greatest values on {} images",
        plan.layers.len(),
        plan.activations.len(),
        inputs.len()
    );
    Ok((model, summary))
}

/// The range of each of the plan's activations over all inputs.
fn calibrate(
    model: &ModelProto,
    plan: &QuantizationPlan,
    inputs: &Inputs,
    runtime: Runtime,
) -> Result<Vec<ValueRange>, ExportError> {
    let mut observer = model.clone();
    observer.graph = Some(range_observer(&model.graph, plan)).into();
    let what = Path::new("the network for calibration");
    let mut session = open_session(&observer, what, runtime)?;
    let mut ranges = vec![(f32::INFINITY, f32::NEG_INFINITY); plan.activations.len()];
    inputs.for_each(|batch| {
        let shape = inputs.shape(batch.rows.len());
        let seen = session.run(&batch.images, shape);
        let (_, extremes) = seen.map_err(ExportError::Calibration)?;
        if let Some(at) = extremes.iter().position(|value| !value.is_finite()) {
            return Err(ExportError::Calibration(format!(
                "`{}` reaches {} on these images; the weights may be damaged",
                plan.activations[at / 2],
                extremes[at]
            )));
        }
        for (range, seen) in ranges.iter_mut().zip(extremes.chunks_exact(2)) {
            *range = (range.0.min(seen[0]), range.1.max(seen[1]));
        }
        Ok(())
    })?;
    Ok(ranges)
}
