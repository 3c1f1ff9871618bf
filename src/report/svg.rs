//! Drawing: line charts over epochs, as SVG text.

use plotters::coord::Shift;
use plotters::prelude::*;

/// What `plotters` reports for an SVG in memory.
type Result = std::result::Result<(), DrawingAreaErrorKind<std::io::Error>>;
type Area<'a> = DrawingArea<SVGBackend<'a>, Shift>;

/// Okabe and Ito's colours, which stay apart for colour-blind readers.
const COLORS: [RGBColor; 3] = [
    RGBColor(0, 114, 178),
    RGBColor(213, 94, 0),
    RGBColor(0, 158, 115),
];
const FONT: &str = "sans-serif";

/// One line of a chart.
pub(super) struct Line {
    pub name: &'static str,
    /// Epoch (or what the axis shows) and value, both finite.
    pub points: Vec<(f64, f64)>,
}

/// Lines over whole numbers.
pub(super) struct Lines<'a> {
    pub title: &'a str,
    pub x_label: &'a str,
    pub y_label: &'a str,
    /// The top of the value axis; `None` fits it to the lines.
    pub y_max: Option<f64>,
    /// Where the lines leave room for it.
    pub legend: SeriesLabelPosition,
    pub series: Vec<Line>,
}

impl Lines<'_> {
    /// Draws the chart as an SVG document.
    pub fn draw(&self, out: &mut String) -> Result {
        let area = SVGBackend::with_string(out, (720, 440)).into_drawing_area();
        area.fill(&WHITE)?;
        self.draw_on(&area)?;
        area.present()
    }

    fn draw_on(&self, area: &Area) -> Result {
        let points = || self.series.iter().flat_map(|line| &line.points);
        let last = points().map(|(x, _)| *x).fold(0.0, f64::max) as i32;
        let highest = points().map(|(_, y)| *y).fold(0.0, f64::max);
        let top = self
            .y_max
            .unwrap_or(if highest > 0.0 { highest * 1.05 } else { 1.0 });
        let mut chart = ChartBuilder::on(area)
            .caption(self.title, (FONT, 20))
            .margin(12)
            .x_label_area_size(42)
            .y_label_area_size(64)
            .build_cartesian_2d(0..last.max(1), 0.0..top)?;
        chart
            .configure_mesh()
            .x_desc(self.x_label)
            .y_desc(self.y_label)
            .y_label_formatter(&|y| {
                if (10.0..1e4).contains(&top) {
                    format!("{y:.0}")
                } else if *y < 1e4 {
                    format!("{y:.3}")
                } else {
                    format!("{y:.0e}")
                }
            })
            .label_style((FONT, 13))
            .axis_desc_style((FONT, 15))
            .light_line_style(TRANSPARENT)
            .draw()?;
        for (line, color) in self.series.iter().zip(COLORS.iter().cycle()) {
            let points = || line.points.iter().map(|(x, y)| (*x as i32, *y));
            if points().next().is_none() {
                continue;
            }
            chart
                .draw_series(LineSeries::new(points(), color.stroke_width(2)))?
                .label(line.name)
                .legend(move |(x, y)| {
                    PathElement::new([(x, y), (x + 18, y)], color.stroke_width(2))
                });
            // A run of one epoch has no line, but it has a point.
            chart.draw_series(points().map(|point| Circle::new(point, 2, color.filled())))?;
        }
        chart
            .configure_series_labels()
            .position(self.legend.clone())
            .background_style(WHITE.mix(0.85))
            .border_style(BLACK.mix(0.3))
            .label_font((FONT, 13))
            .draw()
    }
}
