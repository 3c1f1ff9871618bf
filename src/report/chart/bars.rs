//! One horizontal bar a class, with its interval.

use maud::html;

use super::{Chart, Frame, shortened};
use crate::metrics::Interval;

const ROW: f64 = 18.0;
const WIDTH: f64 = 400.0;
/// Of a name that is shown, characters.
const NAME: usize = 25;

/// A class's bar.
pub struct Bar<'a> {
    /// Name of the class.
    pub name: &'a str,
    /// 0–1.
    pub value: f64,
    /// Around it.
    pub interval: Option<Interval>,
    /// Samples that have the class.
    pub support: usize,
}

/// F1 of each class, from the top down.
pub fn class_bars(bars: &[Bar]) -> Chart {
    let frame = Frame {
        left: 156.0,
        top: 4.0,
        width: WIDTH - 156.0 - 38.0,
        height: ROW * bars.len() as f64,
    };
    let middle = |row: usize| frame.top + ROW * (row as f64 + 0.5);
    Chart {
        width: WIDTH,
        height: frame.top + frame.height + 30.0,
        label: "F1 of each class".into(),
        body: html! {
            (frame.axes("F1", None))
            @for (row, bar) in bars.iter().enumerate() {
                @let y = middle(row);
                g {
                    title {
                        (bar.name) ": F1 " (format!("{:.3}", bar.value))
                        @if let Some(interval) = bar.interval {
                            (format!(", 95 % interval {:.3} to {:.3}", interval.low, interval.high))
                        }
                        ", " (bar.support) " samples have it"
                    }
                    text.end x=(frame.left - 6.0) y=(y + 3.5) { (shortened(bar.name, NAME)) }
                    rect.one x=(frame.left) y=(y - 5.0) height="10"
                        width=(frame.x(bar.value.clamp(0.0, 1.0)) - frame.left) {}
                    @if let Some(interval) = bar.interval {
                        @let (low, high) = (frame.x(interval.low), frame.x(interval.high));
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
