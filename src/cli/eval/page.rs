//! The report of an evaluation: which samples it shows, and what it says about them.

use std::io::Cursor;
use std::path::Path;

use anyhow::Context;
use image::imageops::thumbnail;
use image::{DynamicImage, ImageFormat};

use super::Judgement;
use super::overlays::Evidence;
use crate::imaging::{CHANNELS, DecodeLimits, Planes, Sample, composite, draw_cells, read_sample};
use crate::report::{Card, EvaluationPage, Picked, pick};

/// Samples in each section.
const SAMPLES: usize = 12;
/// Longer side of a picture, pixels: sharp at the size of a card on a phone.
const SIDE: u32 = 320;
/// With fewer positives than this, an F1 is little more than a guess.
const FEW: usize = 10;
/// A probability that changes by less than this, wherever the image is hidden, tells nothing.
const FAINT: f32 = 0.005;

/// What of a sample's evidence a section shows.
type Find = fn(&Judgement, usize) -> Option<Evidence>;

/// Writes `report.html` and `plots/`.
pub(super) fn write_page(judgement: &Judgement, out: &Path) -> anyhow::Result<()> {
    let data = judgement.judged.data()?;
    let [wrong, uncertain] = pick(&data, SAMPLES);
    let cards = |picked: Picked, unit: &str, evidence: Find| -> anyhow::Result<Vec<Card>> {
        let card = |(sample, value)| {
            let measured = format!("{unit} {value:.3}");
            judgement.card(sample, measured, evidence(judgement, sample))
        };
        picked.into_iter().map(card).collect()
    };
    let subject = judgement.subject.file_name().unwrap_or_default();
    let page = EvaluationPage {
        subject: subject.to_string_lossy().into_owned(),
        classes: &judgement.classes,
        data,
        points: &judgement.points,
        remarks: judgement.remarks(),
        samples: vec![
            (
                "Most wrong",
                "The samples with the highest loss. Wrong labels are often among them.",
                cards(wrong, "loss", Judgement::evidence_of_error)?,
            ),
            (
                "Most uncertain",
                "The samples whose probabilities say least: the highest mean entropy, in bits.",
                cards(uncertain, "entropy", Judgement::evidence_of_doubt)?,
            ),
        ],
        about: judgement.about.clone(),
    };
    Ok(page.write(out)?)
}

impl Judgement {
    fn card(
        &self,
        sample: usize,
        measured: String,
        evidence: Option<Evidence>,
    ) -> anyhow::Result<Card> {
        let id = &self.judged.ids[sample];
        let files = self.pictures.iter().find(|files| files.id == *id);
        // An image that cannot be read is no reason to do without the report.
        let picture = files.and_then(picture);
        let mut card = Card {
            sample,
            id: id.clone(),
            measured,
            ..Card::default()
        };
        if let Some(picture) = picture {
            let size = [picture.width(), picture.height()];
            card.picture = Some(png(&picture, id)?);
            if let Some(evidence) = evidence {
                (card.overlay, card.looked) = self.overlay(&evidence, size, id)?;
            }
        }
        Ok(card)
    }

    /// The evidence as a picture of that size, and what it shows in words.
    fn overlay(
        &self,
        evidence: &Evidence,
        size: [u32; 2],
        id: &str,
    ) -> anyhow::Result<(Option<Vec<u8>>, String)> {
        let class = &self.classes[evidence.class];
        let what = if evidence.speaks_for {
            "for"
        } else {
            "against"
        };
        let most = evidence.cells.iter().copied().fold(0.0, f32::max);
        if most < FAINT {
            let looked = format!("no single square speaks {what} {class}");
            return Ok((None, looked));
        }
        let map = draw_cells(&evidence.cells, most, size);
        let looked = format!("what speaks {what} {class}, by {most:.3} at most");
        Ok((Some(png(&map.into(), id)?), looked))
    }

    /// What a reader should know beside the numbers.
    fn remarks(&self) -> Vec<String> {
        let e = self.evaluation();
        let mut remarks = Vec::new();
        if !self.failures.is_empty() {
            let failed = self.failures.len();
            remarks.push(format!(
                "{failed} labelled samples could not be judged and are missing here; errors.csv \
                 lists them."
            ));
        }
        let few = e.classes.iter().filter(|c| c.support() < FEW).count();
        if few > 0 {
            remarks.push(format!(
                "{few} classes have fewer than {FEW} positives here. Their F1 is hardly known, and \
                 the macro-F1's interval is too narrow where many classes are like that."
            ));
        }
        if e.macro_f1 <= e.chance.best() {
            remarks.push(
                "The macro-F1 is no better than that of a predictor that does not look at the \
                 images."
                    .into(),
            );
        }
        if let (Some(tuned), Some(optimism)) = (&self.tuned, self.optimism()) {
            remarks.push(format!(
                "Thresholds tuned on these labels look like a macro-F1 of {:.3} on the same labels, \
                 which is {optimism:.3} too good: cross-fitted, where no sample has a part in its \
                 own thresholds, they reach {:.3}.",
                tuned.apparent.macro_f1,
                tuned.apparent.macro_f1 - optimism
            ));
        }
        if self.points[0].intervals.is_none() {
            remarks.push(
                "There are no intervals: too few samples, or they were not asked for.".into(),
            );
        }
        remarks
    }
}

/// A sample's composite, small; `None` if its files cannot be read.
fn picture(sample: &Sample) -> Option<DynamicImage> {
    let planes = read_sample(sample, &DecodeLimits::default()).ok()?;
    let whole = composite(&in_order(planes, &sample.channels));
    let longest = whole.width().max(whole.height()).max(1);
    let scale = (f64::from(SIDE) / f64::from(longest)).min(1.0);
    let side = |pixels: u32| ((f64::from(pixels) * scale).round() as u32).max(1);
    Some(thumbnail(&whole, side(whole.width()), side(whole.height())).into())
}

fn png(picture: &DynamicImage, id: &str) -> anyhow::Result<Vec<u8>> {
    let mut png = Cursor::new(Vec::new());
    picture
        .write_to(&mut png, ImageFormat::Png)
        .with_context(|| format!("the picture of {id}"))?;
    Ok(png.into_inner())
}

/// The planes that the composite wants: red, green, blue and yellow where all stains have these
/// names, black if they are missing; else the stains as they come.
fn in_order(planes: Planes, stains: &[String]) -> Planes {
    let place = |stain: &String| CHANNELS.iter().position(|name| name == stain);
    let order: Option<Vec<usize>> = stains.iter().map(place).collect();
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
