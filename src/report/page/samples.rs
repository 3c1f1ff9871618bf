//! Samples to look at: those that the model got most wrong, and those that it knew least about.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use maud::{Markup, html};

use super::EvaluationPage;
use crate::metrics::{Labelled, cross_entropy};

/// The classes on a card, at most.
const MOST_CHIPS: usize = 6;

/// A sample on the page.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Card {
    /// Its place among the judged samples.
    pub sample: usize,
    /// Its id.
    pub id: String,
    /// What was measured of it: `loss 2.31`.
    pub measured: String,
    /// A picture, as PNG.
    pub picture: Option<Vec<u8>>,
    /// Where the model looked, as PNG with transparency of the same shape, laid over the picture.
    pub overlay: Option<Vec<u8>>,
    /// What the overlay shows: `what speaks for Nuclei`; or why there is none.
    pub looked: String,
}

/// Samples by number with what was measured of them, the most extreme first.
pub type Picked = Vec<(usize, f64)>;

/// The `count` samples with the highest mean cross-entropy, and those with the highest mean entropy
/// of their probabilities, in bits.
#[must_use]
pub fn pick(data: &Labelled, count: usize) -> [Picked; 2] {
    let entropy = |probability: f32| {
        let p = f64::from(probability);
        let part = |p: f64| if p > 0.0 { -p * p.log2() } else { 0.0 };
        part(p) + part(1.0 - p)
    };
    let mean = |sample: usize, of: &dyn Fn((f32, bool)) -> f64| {
        data.row(sample).map(of).sum::<f64>() / data.classes() as f64
    };
    let highest = |of: &dyn Fn((f32, bool)) -> f64| {
        let mut all: Picked = (0..data.samples()).map(|s| (s, mean(s, of))).collect();
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
        @for (number, (heading, what, cards)) in page.samples.iter().enumerate() {
            @if !cards.is_empty() {
                section {
                    h2 { (heading) }
                    p.muted.small {
                        (what) " "
                        span.hit { "✓ found" } ", " span.alarm { "✗ predicted wrongly" }
                        ", ○ missed, each with its probability."
                        @if cards.iter().any(|card| card.overlay.is_some()) {
                            " Squares are the parts of the image without which one class's "
                            "probability falls (what speaks for it) or rises (against it): the "
                            "lighter, the more."
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

fn draw(card: &Card, toggle: &str, chips: &Markup) -> Markup {
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
                label.small for=(toggle) { (card.looked) }
            } @else if !card.looked.is_empty() {
                p.muted.small.looked { (card.looked) }
            }
            p.id { (card.id) " " span.muted { (card.measured) } }
            ul.chips { (chips) }
        }
    }
}

/// The classes that the sample has or is said to have.
fn chips(page: &EvaluationPage, sample: usize, predicted: &[u16]) -> Markup {
    let mut classes: Vec<_> = page
        .data
        .row(sample)
        .enumerate()
        .map(|(class, (p, truth))| (class, p, truth, predicted.contains(&(class as u16))))
        .filter(|(.., truth, predicted)| *truth || *predicted)
        .collect();
    let more = classes.len().saturating_sub(MOST_CHIPS);
    classes.sort_by(|a, b| b.2.cmp(&a.2).then(b.1.total_cmp(&a.1)));
    html! {
        @if classes.is_empty() { li { "neither has nor is given a class" } }
        @for (class, probability, truth, predicted) in classes.into_iter().take(MOST_CHIPS) {
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
