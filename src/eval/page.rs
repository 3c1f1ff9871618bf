//! `report.html` of an evaluation: the selected samples and the limits of the numbers.

use std::io::Cursor;
use std::path::Path;

use image::imageops::thumbnail;
use image::{DynamicImage, ImageFormat};

use super::occlusion_maps::{ClassEvidence, OcclusionMaps};
use super::samples::EvaluatedSamples;
use super::{EvalError, EvalReport};
use crate::imaging::{CHANNELS, DecodeLimits, Planes, Sample, composite, draw_cells, read_sample};
use crate::report::{EvaluationPage, SampleCard, SampleValues, extreme_samples};

/// Samples in each section.
const SAMPLES: usize = 12;
/// Longer side of a picture, pixels: sharp at the size of a card on a phone.
const SIDE: u32 = 320;
/// With fewer positives, the F1 of a class is unreliable.
const FEW_POSITIVES: usize = 10;
/// A smaller change of a probability is not shown as a map.
const MIN_CHANGE: f32 = 0.005;

/// Selects the evidence that a section shows for a sample.
type SelectEvidence = fn(&OcclusionMaps, &EvaluatedSamples, usize) -> Option<ClassEvidence>;

/// Writes `report.html` and `plots/`.
pub(super) fn write_page(report: &EvalReport, out: &Path) -> Result<(), EvalError> {
    let data = report.samples.data()?;
    let [wrong, uncertain] = extreme_samples(&data, SAMPLES);
    let subject = report.subject.file_name().unwrap_or_default();
    let page = EvaluationPage {
        subject: subject.to_string_lossy().into_owned(),
        classes: &report.classes,
        data,
        points: &report.points,
        remarks: report.remarks(),
        samples: vec![
            (
                "Most wrong",
                "The samples with the highest loss. Wrong labels are often among them.",
                report.cards(wrong, "loss", OcclusionMaps::evidence_of_error)?,
            ),
            (
                "Most uncertain",
                "The samples with the most uncertain probabilities: highest mean entropy, in bits.",
                report.cards(uncertain, "entropy", OcclusionMaps::evidence_of_doubt)?,
            ),
        ],
        about: report.about.clone(),
    };
    Ok(page.write(out)?)
}

impl EvalReport {
    fn cards(
        &self,
        samples: SampleValues,
        unit: &str,
        evidence: SelectEvidence,
    ) -> Result<Vec<SampleCard>, EvalError> {
        let card = |(sample, value)| {
            let measured = format!("{unit} {value:.3}");
            self.card(
                sample,
                measured,
                evidence(&self.maps, &self.samples, sample),
            )
        };
        samples.into_iter().map(card).collect()
    }

    fn card(
        &self,
        sample: usize,
        measured: String,
        evidence: Option<ClassEvidence>,
    ) -> Result<SampleCard, EvalError> {
        let id = &self.samples.ids[sample];
        let files = self.images.iter().find(|files| files.id == *id);
        let mut card = SampleCard {
            sample,
            id: id.clone(),
            measured,
            ..SampleCard::default()
        };
        // A sample without a readable image has a card without a picture.
        if let Some(picture) = files.and_then(picture) {
            let size = [picture.width(), picture.height()];
            card.picture = Some(png(&picture, id)?);
            if let Some(evidence) = evidence {
                (card.overlay, card.caption) = self.overlay(&evidence, size, id)?;
            }
        }
        Ok(card)
    }

    /// Returns the evidence as a PNG of that size, and its caption.
    fn overlay(
        &self,
        evidence: &ClassEvidence,
        size: [u32; 2],
        id: &str,
    ) -> Result<(Option<Vec<u8>>, String), EvalError> {
        let class = &self.classes[evidence.class];
        let direction = if evidence.supports { "for" } else { "against" };
        let largest = evidence.cells.iter().copied().fold(0.0, f32::max);
        if largest < MIN_CHANGE {
            let caption = format!("no evidence {direction} {class} in any single square");
            return Ok((None, caption));
        }
        let map = draw_cells(&evidence.cells, largest, size);
        let caption = format!("evidence {direction} {class}, at most {largest:.3}");
        Ok((Some(png(&map.into(), id)?), caption))
    }

    /// Returns the limits of the numbers.
    fn remarks(&self) -> Vec<String> {
        let e = self.evaluation();
        let mut remarks = Vec::new();
        if !self.failures.is_empty() {
            let failed = self.failures.len();
            remarks.push(format!(
                "{failed} labelled samples could not be evaluated and are not included; see \
                 errors.csv."
            ));
        }
        let few = e.classes.iter().filter(|c| c.support() < FEW_POSITIVES);
        let few = few.count();
        if few > 0 {
            remarks.push(format!(
                "{few} classes have fewer than {FEW_POSITIVES} positives. Their F1 is unreliable. If \
                 many classes are like that, the interval of the macro-F1 is too narrow."
            ));
        }
        if e.macro_f1 <= e.chance.best() {
            remarks.push(
                "The macro-F1 is no better than that of a predictor that ignores the images."
                    .into(),
            );
        }
        if let (Some(tuned), Some(optimism)) = (&self.tuned, self.optimism()) {
            remarks.push(format!(
                "On the labels that they were tuned on, the tuned thresholds have a macro-F1 of \
                 {:.3}, which is {optimism:.3} too high. Cross-fitted, where no sample takes part in \
                 tuning its own thresholds, the macro-F1 is {:.3}.",
                tuned.apparent.macro_f1,
                tuned.apparent.macro_f1 - optimism
            ));
        }
        if self.points[0].intervals.is_none() {
            remarks.push("There are no intervals: too few samples or bootstrap draws.".into());
        }
        remarks
    }
}

/// Returns a small composite of a sample; `None` if its files cannot be read.
fn picture(sample: &Sample) -> Option<DynamicImage> {
    let planes = read_sample(sample, &DecodeLimits::default()).ok()?;
    let full = composite(&composite_order(planes, &sample.channels));
    let longest = full.width().max(full.height()).max(1);
    let scale = (f64::from(SIDE) / f64::from(longest)).min(1.0);
    let side = |pixels: u32| ((f64::from(pixels) * scale).round() as u32).max(1);
    Some(thumbnail(&full, side(full.width()), side(full.height())).into())
}

fn png(picture: &DynamicImage, id: &str) -> Result<Vec<u8>, EvalError> {
    let mut png = Cursor::new(Vec::new());
    picture
        .write_to(&mut png, ImageFormat::Png)
        .map_err(|cause| EvalError::Picture {
            id: id.to_owned(),
            cause,
        })?;
    Ok(png.into_inner())
}

/// Sorts the planes for the composite: red, green, blue, yellow, if all stains have these names;
/// missing ones are black. Other stains keep their order.
fn composite_order(planes: Planes, stains: &[String]) -> Planes {
    let position = |stain: &String| CHANNELS.iter().position(|name| name == stain);
    let order: Option<Vec<usize>> = stains.iter().map(position).collect();
    let Some(order) = order else {
        return planes;
    };
    let len = planes.plane_len();
    let mut data = vec![0; CHANNELS.len() * len];
    for (from, to) in order.into_iter().enumerate() {
        if let Some(plane) = planes.plane(from) {
            data[to * len..(to + 1) * len].copy_from_slice(plane);
        }
    }
    Planes {
        channels: CHANNELS.len(),
        data,
        ..planes
    }
}
