//! Charts as SVG, inside a page and as separate files.
//!
//! Colours are CSS classes. The style sheet of a page defines them for light and dark mode; a
//! separate file contains the light one. Coordinates are CSS pixels.

mod bars;
mod curves;
mod heat_map;
mod lines;

use maud::{Markup, PreEscaped, html};

pub(super) use bars::{ClassBar, class_bars};
pub(super) use curves::{calibration, histogram, precision_recall};
pub(super) use heat_map::heat_map;
pub(super) use lines::{ChartLine, LineChart, line_chart, significant};

/// Style sheet of the charts, with the colour-blind-safe palette of Okabe and Ito.
pub(super) const STYLE: &str = include_str!("chart.css");

/// A drawing of fixed size.
pub(super) struct Chart {
    pub width: f64,
    pub height: f64,
    /// Description for screen readers.
    pub label: String,
    pub body: Markup,
}

impl Chart {
    /// Returns an SVG element for a page.
    pub fn svg(&self) -> Markup {
        html! {
            svg.chart xmlns="http://www.w3.org/2000/svg" role="img" aria-label=(self.label)
                viewBox=(format!("0 0 {} {}", self.width, self.height))
                style=(format!("max-width:{}px", self.width * 1.5)) { (self.body) }
        }
    }

    /// Returns the content of an SVG file.
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

/// Adds a title above a chart, for a file.
pub(super) fn titled(title: &str, chart: Chart) -> Chart {
    let label = chart.label.clone();
    grid(&label, 1, &[(title.to_owned(), chart)])
}

/// Arranges charts with titles in rows of `columns`.
pub(super) fn grid(label: &str, columns: usize, charts: &[(String, Chart)]) -> Chart {
    const TITLE: f64 = 18.0;
    let width = charts.iter().map(|(_, c)| c.width).fold(0.0, f64::max);
    let height = charts.iter().map(|(_, c)| c.height).fold(0.0, f64::max) + TITLE;
    let columns = columns.clamp(1, charts.len().max(1));
    let position = |number: usize| {
        let (row, column) = (number / columns, number % columns);
        (column as f64 * width, row as f64 * height)
    };
    Chart {
        width: width * columns as f64,
        height: height * charts.len().div_ceil(columns) as f64,
        label: label.to_owned(),
        body: html! {
            @for (number, (title, chart)) in charts.iter().enumerate() {
                @let (x, y) = position(number);
                g transform=(format!("translate({x} {y})")) {
                    text.title x="8" y="13" { (truncated(title, 30)) }
                    g transform=(format!("translate(0 {TITLE})")) { (chart.body) }
                }
            }
        },
    }
}

/// A rectangular plot area with axes from 0 to 1.
struct PlotArea {
    left: f64,
    top: f64,
    width: f64,
    height: f64,
}

impl PlotArea {
    /// Returns the x coordinate of a share (0–1) of the horizontal axis.
    fn x(&self, share: f64) -> f64 {
        round(self.left + self.width * share)
    }

    /// Returns the y coordinate of a share (0–1) of the vertical axis.
    fn y(&self, share: f64) -> f64 {
        round(self.top + self.height * (1.0 - share))
    }

    fn bottom(&self) -> f64 {
        round(self.top + self.height)
    }

    /// Draws grid lines and labels at 0, ½ and 1, and the axis names.
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

    /// Draws the name along the vertical axis.
    fn y_name(&self, name: &str) -> Markup {
        let middle = self.top + self.height / 2.0;
        html! {
            text.axis.middle x="0" y="0" transform=(format!("translate(9 {middle}) rotate(-90)")) {
                (name)
            }
        }
    }
}

/// Returns SVG path data through the points.
fn path(points: impl Iterator<Item = (f64, f64)>) -> String {
    let mut text = String::new();
    for (x, y) in points {
        let command = if text.is_empty() { 'M' } else { 'L' };
        text += &format!("{command}{x} {y}");
    }
    text
}

/// Rounds to a tenth of a pixel, to keep files small.
fn round(value: f64) -> f64 {
    (value * 10.0).round() / 10.0
}

/// Truncates the text to `max_chars` characters.
fn truncated(text: &str, max_chars: usize) -> String {
    if text.chars().count() <= max_chars {
        return text.to_owned();
    }
    text.chars().take(max_chars - 1).chain(['…']).collect()
}
