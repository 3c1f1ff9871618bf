//! Copies rows from parts to the result, in pieces.

use std::collections::BTreeMap;
use std::fs::File;
use std::io;
use std::path::Path;

use arrow_array::cast::AsArray;
use arrow_array::{RecordBatch, UInt32Array};
use arrow_schema::SchemaRef;
use arrow_select::interleave::interleave_record_batch;
use arrow_select::take::take_record_batch;
use csv::StringRecord;
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;

use super::super::output;
use super::MergeError;
use super::order::PartPosition;
use super::part::{MARK, MergePart, PartColumns, changed_meanwhile};
use rgby_common::atomic_file;

/// Size of a piece, in bytes of the parts' files.
const PIECE: u64 = 64 << 20;
/// Minimum number of rows of a piece.
const MIN_ROWS: u64 = 4096;

/// Writes the rows of `order` to `out` atomically.
pub(super) fn write(
    out: &Path,
    parts: &[MergePart],
    order: &[PartPosition],
) -> Result<(), MergeError> {
    let bytes: u64 = parts.iter().map(|part| part.bytes).sum();
    let row = (bytes / (order.len() as u64).max(1)).max(1);
    let pieces = order.chunks((PIECE / row).max(MIN_ROWS) as usize);
    match &parts[0].columns {
        PartColumns::Csv(header) => atomic_file::write_atomic_with(out, |file| {
            let mut csv = csv::Writer::from_writer(file);
            csv.write_record(header)?;
            for piece in pieces {
                for record in csv_rows(parts, piece)? {
                    csv.write_record(&record)?;
                }
            }
            csv.flush()
        })?,
        PartColumns::Parquet(schema) => {
            let mut batches = pieces.map(|piece| parquet_rows(schema, parts, piece));
            output::write_batches(out, schema, &mut batches)?;
        }
    }
    Ok(())
}

/// Returns the rows to read from each part, ascending, with their index in the piece.
fn by_part(piece: &[PartPosition]) -> BTreeMap<u32, Vec<(u32, usize)>> {
    let mut wanted: BTreeMap<u32, Vec<(u32, usize)>> = BTreeMap::new();
    for (at, place) in piece.iter().enumerate() {
        wanted.entry(place.part).or_default().push((place.row, at));
    }
    for rows in wanted.values_mut() {
        rows.sort_unstable();
    }
    wanted
}

fn csv_rows(parts: &[MergePart], piece: &[PartPosition]) -> io::Result<Vec<StringRecord>> {
    let mut records = vec![StringRecord::new(); piece.len()];
    for (part, wanted) in by_part(piece) {
        let part = &parts[part as usize];
        let mut reader = csv::Reader::from_path(part.file.path())?;
        let mark = wanted[0].0 as usize / MARK;
        reader.seek(part.marks[mark].clone())?;
        let mut next = mark * MARK;
        let mut record = StringRecord::new();
        for (row, at) in wanted {
            let row = row as usize;
            while next <= row {
                if !reader.read_record(&mut record)? {
                    return Err(changed_meanwhile(&part.file));
                }
                next += 1;
            }
            if record.get(0) != Some(&part.ids[row]) {
                return Err(changed_meanwhile(&part.file));
            }
            records[at].clone_from(&record);
        }
    }
    Ok(records)
}

fn parquet_rows(
    schema: &SchemaRef,
    parts: &[MergePart],
    piece: &[PartPosition],
) -> io::Result<RecordBatch> {
    let mut batches = Vec::new();
    // For each row of the piece, its batch and its row in the batch.
    let mut sources = vec![(0, 0); piece.len()];
    for (part, wanted) in by_part(piece) {
        read_wanted(&parts[part as usize], &wanted, &mut batches, &mut sources)?;
    }
    let batches: Vec<&RecordBatch> = batches.iter().collect();
    let rows = interleave_record_batch(&batches, &sources).map_err(io::Error::other)?;
    RecordBatch::try_new(schema.clone(), rows.columns().to_vec()).map_err(io::Error::other)
}

/// Reads the `wanted` rows of a Parquet file into batches, and stores their positions in `sources`.
fn read_wanted(
    part: &MergePart,
    wanted: &[(u32, usize)],
    batches: &mut Vec<RecordBatch>,
    sources: &mut [(usize, usize)],
) -> io::Result<()> {
    let (first, last) = (wanted[0].0, wanted[wanted.len() - 1].0);
    let builder = ParquetRecordBatchReaderBuilder::try_new(File::open(part.file.path())?)
        .map_err(io::Error::other)?;
    let reader = builder
        .with_offset(first as usize)
        .with_limit((last - first) as usize + 1)
        .build()
        .map_err(io::Error::other)?;
    let (mut start, mut left) = (first, wanted);
    for batch in reader {
        let batch = batch.map_err(io::Error::other)?;
        let end = start + batch.num_rows() as u32;
        let (here, later) = left.split_at(left.partition_point(|(row, _)| *row < end));
        let ids = batch.column(0).as_string::<i32>();
        for (nth, (row, at)) in here.iter().enumerate() {
            if ids.value((row - start) as usize) != part.ids[*row as usize] {
                return Err(changed_meanwhile(&part.file));
            }
            sources[*at] = (batches.len(), nth);
        }
        let rows = UInt32Array::from_iter_values(here.iter().map(|(row, _)| row - start));
        batches.push(take_record_batch(&batch, &rows).map_err(io::Error::other)?);
        (start, left) = (end, later);
    }
    if left.is_empty() {
        Ok(())
    } else {
        Err(changed_meanwhile(&part.file))
    }
}
