//! Heat map of shares.

use maud::html;

use super::{Chart, round};

const SIDE: f64 = 360.0;
const MARGIN: f64 = 22.0;

/// Draws shares (0–1) of `[row][column]`, larger ones darker. `names` holds number and name of each
/// row and column.
pub fn heat_map(label: &str, names: &[(usize, &str)], shares: &[Vec<f64>]) -> Chart {
    let cell = (SIDE - MARGIN) / names.len().max(1) as f64;
    let position = |at: usize| round(MARGIN + cell * at as f64);
    // Labels that would overlap are omitted.
    let step = (15.0 / cell).ceil().max(1.0) as usize;
    Chart {
        width: SIDE,
        height: SIDE,
        label: label.to_owned(),
        body: html! {
            @for (at, (number, name)) in names.iter().enumerate().step_by(step) {
                text.tick.end x=(MARGIN - 4.0) y=(position(at) + cell / 2.0 + 3.0) {
                    title { (name) } (number)
                }
                text.tick.middle x=(position(at) + cell / 2.0) y=(MARGIN - 6.0) {
                    title { (name) } (number)
                }
            }
            @for (row, (_, row_name)) in names.iter().enumerate() {
                @for (column, (_, column_name)) in names.iter().enumerate() {
                    @let share = shares[row][column];
                    @if share >= 0.005 {
                        rect.cell x=(position(column)) y=(position(row)) width=(round(cell - 0.5))
                            height=(round(cell - 0.5)) fill-opacity=(format!("{share:.2}")) {
                            title {
                                (format!("{:.0} % of {row_name} have {column_name}", share * 100.0))
                            }
                        }
                    }
                }
            }
            rect.box x=(MARGIN) y=(MARGIN) width=(SIDE - MARGIN) height=(SIDE - MARGIN) {}
        },
    }
}
