//! Samples with the largest loss and with the most uncertain probabilities.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use maud::{Markup, html};

use super::EvaluationPage;
use crate::metrics::{Labelled, cross_entropy};

/// Largest number of classes on a card.
const MAX_CHIPS: usize = 6;

/// A sample on the page.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct SampleCard {
    /// Index among the evaluated samples.
    pub sample: usize,
    pub id: String,
    /// For example `loss 2.31`.
    pub measured: String,
    /// Composite image as PNG.
    pub picture: Option<Vec<u8>>,
    /// Occlusion map as PNG with transparency, in the shape of the picture.
    pub overlay: Option<Vec<u8>>,
    /// What the overlay shows, for example `evidence for Nuclei`; or why there is none.
    pub caption: String,
}

/// Sample indices with a value, in descending order of the value.
pub type SampleValues = Vec<(usize, f64)>;

/// Returns the `count` samples with the highest mean cross-entropy, and those with the highest mean
/// entropy of their probabilities in bits.
#[must_use]
pub fn extreme_samples(data: &Labelled, count: usize) -> [SampleValues; 2] {
    let entropy = |probability: f32| {
        let p = f64::from(probability);
        let term = |p: f64| if p > 0.0 { -p * p.log2() } else { 0.0 };
        term(p) + term(1.0 - p)
    };
    let mean = |sample: usize, measure: &dyn Fn((f32, bool)) -> f64| {
        data.row(sample).map(measure).sum::<f64>() / data.classes() as f64
    };
    let highest = |measure: &dyn Fn((f32, bool)) -> f64| {
        let mut all: SampleValues = (0..data.samples()).map(|s| (s, mean(s, measure))).collect();
        all.sort_by(|a, b| b.1.total_cmp(&a.1).then(a.0.cmp(&b.0)));
        all.truncate(count);
        all
    };
    [
        highest(&|(p, truth)| cross_entropy(p, truth)),
        highest(&|(p, _)| entropy(p)),
    ]
}

pub(super) fn sections(page: &EvaluationPage) -> Markup {
    let predicted = page.shown().decisions.predicted();
    html! {
        @for (number, (heading, description, cards)) in page.samples.iter().enumerate() {
            @if !cards.is_empty() {
                section {
                    h2 { (heading) }
                    p.muted.small {
                        (description) " "
                        span.hit { "✓ true positive" } ", " span.alarm { "✗ false positive" }
                        ", ○ false negative, each with its probability."
                        @if cards.iter().any(|card| card.overlay.is_some()) {
                            " Squares: hiding this part of the image lowers the probability of a "
                            "class (evidence for it) or raises it (evidence against it); lighter "
                            "is more."
                        }
                    }
                    div.cards {
                        @for card in cards {
                            @let chips = chips(page, card.sample, &predicted[card.sample]);
                            (draw(card, &format!("overlay-{number}-{}", card.sample), &chips))
                        }
                    }
                }
            }
        }
    }
}

fn draw(card: &SampleCard, toggle: &str, chips: &Markup) -> Markup {
    html! {
        div.card {
            @if card.overlay.is_some() { input type="checkbox" id=(toggle) checked; }
            @if let Some(picture) = &card.picture {
                span.picture {
                    img alt=(format!("sample {}", card.id)) src=(data_url(picture));
                    @if let Some(overlay) = &card.overlay {
                        img.overlay alt="" src=(data_url(overlay));
                    }
                }
            }
            @if card.overlay.is_some() {
                label.small for=(toggle) { (card.caption) }
            } @else if !card.caption.is_empty() {
                p.muted.small.caption { (card.caption) }
            }
            p.id { (card.id) " " span.muted { (card.measured) } }
            ul.chips { (chips) }
        }
    }
}

/// Draws the true and predicted classes of a sample.
fn chips(page: &EvaluationPage, sample: usize, predicted: &[u16]) -> Markup {
    let mut classes: Vec<_> = page
        .data
        .row(sample)
        .enumerate()
        .map(|(class, (p, truth))| (class, p, truth, predicted.contains(&(class as u16))))
        .filter(|(.., truth, predicted)| *truth || *predicted)
        .collect();
    let more = classes.len().saturating_sub(MAX_CHIPS);
    classes.sort_by(|a, b| b.2.cmp(&a.2).then(b.1.total_cmp(&a.1)));
    html! {
        @if classes.is_empty() { li { "no class, true or predicted" } }
        @for (class, probability, truth, predicted) in classes.into_iter().take(MAX_CHIPS) {
            @let (kind, mark) = match (truth, predicted) {
                (true, true) => ("hit", "✓"),
                (true, false) => ("miss", "○"),
                _ => ("alarm", "✗"),
            };
            li class=(kind) { (mark) " " (page.classes[class]) " " (format!("{probability:.2}")) }
        }
        @if more > 0 { li { "and " (more) " more" } }
    }
}

fn data_url(png: &[u8]) -> String {
    format!("data:image/png;base64,{}", STANDARD.encode(png))
}
