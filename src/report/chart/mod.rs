//! Charts as SVG, for a page and as files of their own.
//!
//! Colours are classes, which the page's style sheet gives a value by light and dark; a file of its
//! own carries the light one. Coordinates are CSS pixels.

mod bars;
mod curves;
mod heat;
mod lines;

use maud::{Markup, PreEscaped, html};

pub(super) use bars::{Bar, class_bars};
pub(super) use curves::{calibration, histogram, precision_recall};
pub(super) use heat::heat_map;
pub(super) use lines::{Line, Lines, line_chart, significant};

/// The colours of charts. Okabe and Ito's, which stay apart for colour-blind readers.
pub(super) const STYLE: &str = include_str!("chart.css");

/// A drawing of a known size.
pub(super) struct Chart {
    pub width: f64,
    pub height: f64,
    /// What it shows, for those who cannot see it.
    pub label: String,
    pub body: Markup,
}

impl Chart {
    /// An element for a page.
    pub fn svg(&self) -> Markup {
        html! {
            svg.chart xmlns="http://www.w3.org/2000/svg" role="img" aria-label=(self.label)
                viewBox=(format!("0 0 {} {}", self.width, self.height))
                style=(format!("max-width:{}px", self.width * 1.5)) { (self.body) }
        }
    }

    /// A file of its own.
    pub fn file(&self) -> String {
        let (width, height) = (self.width, self.height);
        let svg = html! {
            svg.chart xmlns="http://www.w3.org/2000/svg" width=(width) height=(height)
                viewBox=(format!("0 0 {width} {height}")) {
                style { (PreEscaped(STYLE)) }
                rect.paper width="100%" height="100%" {}
                (self.body)
            }
        };
        svg.into_string() + "\n"
    }
}

/// A chart under its title, for a file.
pub(super) fn titled(title: &str, chart: Chart) -> Chart {
    let label = chart.label.clone();
    grid(&label, 1, &[(title.to_owned(), chart)])
}

/// Charts in rows of `columns`, each under its title.
pub(super) fn grid(label: &str, columns: usize, charts: &[(String, Chart)]) -> Chart {
    const TITLE: f64 = 18.0;
    let width = charts.iter().map(|(_, c)| c.width).fold(0.0, f64::max);
    let height = charts.iter().map(|(_, c)| c.height).fold(0.0, f64::max) + TITLE;
    let columns = columns.clamp(1, charts.len().max(1));
    let place = |number: usize| {
        let (row, column) = (number / columns, number % columns);
        (column as f64 * width, row as f64 * height)
    };
    Chart {
        width: width * columns as f64,
        height: height * charts.len().div_ceil(columns) as f64,
        label: label.to_owned(),
        body: html! {
            @for (number, (title, chart)) in charts.iter().enumerate() {
                @let (x, y) = place(number);
                g transform=(format!("translate({x} {y})")) {
                    text.title x="8" y="13" { (shortened(title, 30)) }
                    g transform=(format!("translate(0 {TITLE})")) { (chart.body) }
                }
            }
        },
    }
}

/// A square-cornered drawing area with axes from 0 to 1 or to a largest count.
struct Frame {
    left: f64,
    top: f64,
    width: f64,
    height: f64,
}

impl Frame {
    /// Place of a share 0–1 on the horizontal axis.
    fn x(&self, share: f64) -> f64 {
        round(self.left + self.width * share)
    }

    /// Place of a share 0–1 on the vertical axis.
    fn y(&self, share: f64) -> f64 {
        round(self.top + self.height * (1.0 - share))
    }

    fn bottom(&self) -> f64 {
        round(self.top + self.height)
    }

    /// Grid lines and numbers at 0, ½ and 1, and the axes' names.
    fn axes(&self, x_name: &str, y_name: Option<&str>) -> Markup {
        let (bottom, right) = (self.bottom(), self.left + self.width);
        html! {
            @for (share, text) in [(0.0, "0"), (0.5, "½"), (1.0, "1")] {
                line.grid x1=(self.x(share)) x2=(self.x(share)) y1=(self.top) y2=(bottom) {}
                text.tick.middle x=(self.x(share)) y=(bottom + 12.0) { (text) }
                @if y_name.is_some() {
                    line.grid x1=(self.left) x2=(right) y1=(self.y(share)) y2=(self.y(share)) {}
                    text.tick.end x=(self.left - 4.0) y=(self.y(share) + 3.5) { (text) }
                }
            }
            text.axis.middle x=(self.left + self.width / 2.0) y=(bottom + 24.0) { (x_name) }
            @if let Some(name) = y_name { (self.y_name(name)) }
        }
    }

    /// The name of the vertical axis, along it.
    fn y_name(&self, name: &str) -> Markup {
        let middle = self.top + self.height / 2.0;
        html! {
            text.axis.middle x="0" y="0" transform=(format!("translate(9 {middle}) rotate(-90)")) {
                (name)
            }
        }
    }
}

/// A path through points, `M` to the first and `L` to the others.
fn path(points: impl Iterator<Item = (f64, f64)>) -> String {
    let mut text = String::new();
    for (x, y) in points {
        let command = if text.is_empty() { 'M' } else { 'L' };
        text += &format!("{command}{x} {y}");
    }
    text
}

/// A tenth of a pixel is enough.
fn round(value: f64) -> f64 {
    (value * 10.0).round() / 10.0
}

/// The text, cut to `most` characters.
fn shortened(text: &str, most: usize) -> String {
    if text.chars().count() <= most {
        return text.to_owned();
    }
    text.chars().take(most - 1).chain(['…']).collect()
}
