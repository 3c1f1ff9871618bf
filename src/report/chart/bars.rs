//! Horizontal bars per class, with confidence intervals.

use maud::html;

use super::{Chart, PlotArea, truncated};
use crate::metrics::Interval;

const ROW: f64 = 18.0;
const WIDTH: f64 = 400.0;
/// Longest class name, characters.
const MAX_NAME: usize = 25;

/// Bar of one class.
pub struct ClassBar<'a> {
    pub name: &'a str,
    /// 0–1.
    pub value: f64,
    pub interval: Option<Interval>,
    /// Number of samples that have the class.
    pub support: usize,
}

/// Draws the F1 of each class, from top to bottom.
pub fn class_bars(bars: &[ClassBar]) -> Chart {
    let area = PlotArea {
        left: 156.0,
        top: 4.0,
        width: WIDTH - 156.0 - 38.0,
        height: ROW * bars.len() as f64,
    };
    let middle = |row: usize| area.top + ROW * (row as f64 + 0.5);
    Chart {
        width: WIDTH,
        height: area.top + area.height + 30.0,
        label: "F1 of each class".into(),
        body: html! {
            (area.axes("F1", None))
            @for (row, bar) in bars.iter().enumerate() {
                @let y = middle(row);
                g {
                    title {
                        (bar.name) ": F1 " (format!("{:.3}", bar.value))
                        @if let Some(interval) = bar.interval {
                            (format!(", 95 % interval {:.3} to {:.3}", interval.low, interval.high))
                        }
                        ", " (bar.support) " positive samples"
                    }
                    text.end x=(area.left - 6.0) y=(y + 3.5) { (truncated(bar.name, MAX_NAME)) }
                    rect.one x=(area.left) y=(y - 5.0) height="10"
                        width=(area.x(bar.value.clamp(0.0, 1.0)) - area.left) {}
                    @if let Some(interval) = bar.interval {
                        @let (low, high) = (area.x(interval.low), area.x(interval.high));
                        line.whisker x1=(low) x2=(high) y1=(y) y2=(y) {}
                        line.whisker x1=(low) x2=(low) y1=(y - 3.0) y2=(y + 3.0) {}
                        line.whisker x1=(high) x2=(high) y1=(y - 3.0) y2=(y + 3.0) {}
                    }
                    text.tick.end x=(WIDTH - 4.0) y=(y + 3.5) { (format!("{:.3}", bar.value)) }
                }
            }
        },
    }
}
