//! A square of shares.

use maud::html;

use super::{Chart, round};

const SIDE: f64 = 360.0;
const EDGE: f64 = 22.0;

/// Shares 0–1 of `[row][column]`, the darker the larger. `names` are a number and a name of each.
pub fn heat_map(label: &str, names: &[(usize, &str)], shares: &[Vec<f64>]) -> Chart {
    let cell = (SIDE - EDGE) / names.len().max(1) as f64;
    let place = |at: usize| round(EDGE + cell * at as f64);
    // Numbers that would run together are left out.
    let step = (15.0 / cell).ceil().max(1.0) as usize;
    Chart {
        width: SIDE,
        height: SIDE,
        label: label.to_owned(),
        body: html! {
            @for (at, (number, name)) in names.iter().enumerate().step_by(step) {
                text.tick.end x=(EDGE - 4.0) y=(place(at) + cell / 2.0 + 3.0) {
                    title { (name) } (number)
                }
                text.tick.middle x=(place(at) + cell / 2.0) y=(EDGE - 6.0) {
                    title { (name) } (number)
                }
            }
            @for (row, (_, row_name)) in names.iter().enumerate() {
                @for (column, (_, column_name)) in names.iter().enumerate() {
                    @let share = shares[row][column];
                    @if share >= 0.005 {
                        rect.cell x=(place(column)) y=(place(row)) width=(round(cell - 0.5))
                            height=(round(cell - 0.5)) fill-opacity=(format!("{share:.2}")) {
                            title {
                                (format!("{:.0} % of {row_name} have {column_name}", share * 100.0))
                            }
                        }
                    }
                }
            }
            rect.box x=(EDGE) y=(EDGE) width=(SIDE - EDGE) height=(SIDE - EDGE) {}
        },
    }
}
