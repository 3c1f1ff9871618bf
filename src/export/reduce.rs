//! Reduces the precision of a float32 model.

use std::path::Path;

use super::network::open_session;
use super::{CalibrationInputs, ExportError};
use crate::graph::ModelProto;
use crate::graph::float16::to_float16;
use crate::graph::folding::fold_into_convolutions;
use crate::graph::quantize::{QuantizationPlan, ValueRange, plan, quantize, range_observer};
use crate::score::Runtime;

/// A rewritten model, and what was rewritten in words.
pub(super) type ReducedModel = (ModelProto, String);

/// Returns the model in float16.
///
/// # Errors
///
/// [`ExportError::Graph`].
pub(super) fn to_fp16(model: &ModelProto) -> Result<ReducedModel, ExportError> {
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

/// Returns the model in 8-bit integers, calibrated by the minimum and maximum of each activation on
/// `inputs`.
///
/// # Errors
///
/// [`ExportError::NoCalibrationImages`] for synthetic inputs; no image can be read, or an activation
/// is not finite.
pub(super) fn to_int8(
    model: &ModelProto,
    inputs: &CalibrationInputs,
    runtime: Runtime,
) -> Result<ReducedModel, ExportError> {
    if inputs.are_synthetic() {
        return Err(ExportError::NoCalibrationImages);
    }
    let mut model = model.clone();
    let graph = model.graph.mut_or_insert_default();
    let folded = fold_into_convolutions(graph)?;
    let plan = plan(graph)?;
    let ranges = calibrate(&model, &plan, inputs, runtime)?;
    quantize(model.graph.mut_or_insert_default(), &plan, &ranges)?;
    let summary = format!(
        "{folded} nodes folded into convolutions, {} layers and {} activations in 8 bits, by \
         minimum and maximum on {} images",
        plan.layers.len(),
        plan.activations.len(),
        inputs.len()
    );
    Ok((model, summary))
}

/// Returns the range of each activation of the plan over all inputs.
fn calibrate(
    model: &ModelProto,
    plan: &QuantizationPlan,
    inputs: &CalibrationInputs,
    runtime: Runtime,
) -> Result<Vec<ValueRange>, ExportError> {
    let mut observer = model.clone();
    observer.graph = Some(range_observer(&model.graph, plan)).into();
    let name = Path::new("the network for calibration");
    let mut session = open_session(&observer, name, runtime)?;
    let mut ranges = vec![(f32::INFINITY, f32::NEG_INFINITY); plan.activations.len()];
    inputs.for_each(|batch| {
        let shape = inputs.shape(batch.rows.len());
        let outputs = session.run(&batch.images, shape);
        let (_, extremes) = outputs.map_err(ExportError::Calibration)?;
        if let Some(at) = extremes.iter().position(|value| !value.is_finite()) {
            return Err(ExportError::Calibration(format!(
                "activation `{}` reaches {} on these images; the weights may be damaged",
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
