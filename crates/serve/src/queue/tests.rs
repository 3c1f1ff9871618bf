use std::thread;

use super::super::metrics::Metrics;
use super::*;

const DELAY: Duration = Duration::from_millis(300);
const HOUR: Duration = Duration::from_hours(1);

fn queue(max_batch: usize, max_queue: usize) -> Arc<Queue> {
    let batching = Batching {
        max_batch,
        max_delay: DELAY,
        max_queue,
    };
    Arc::new(Queue::new(batching, Metrics::default().model("m")))
}

/// Queues `count` images of two values, each `value`.
fn submit(queue: &Arc<Queue>, count: usize, value: f32) -> PendingResponse {
    let slots = queue.reserve(count).unwrap();
    queue.submit(
        slots,
        vec![value; count * 2],
        Instant::now() + HOUR,
        &Trace::default(),
    )
}

fn counts(jobs: &[QueuedRequest]) -> Vec<usize> {
    jobs.iter().map(|job| job.count).collect()
}

fn reserved(queue: &Queue) -> usize {
    queue.lock().reserved
}

#[test]
fn a_single_client_is_not_delayed_and_several_share_a_batch() {
    let queue = queue(8, 64);
    let single = submit(&queue, 1, 0.0);
    let start = Instant::now();
    assert_eq!(counts(&queue.next().unwrap()), [1]);
    assert!(start.elapsed() < DELAY / 2);
    drop(single);
    // A second request arrived during the batch, so two are expected next.
    let second = submit(&queue, 1, 0.0);
    queue.batch_finished(1, 0.1);
    let queue_clone = queue.clone();
    let first = thread::spawn(move || {
        thread::sleep(DELAY / 10);
        submit(&queue_clone, 1, 0.0)
    });
    assert_eq!(counts(&queue.next().unwrap()), [1, 1]);
    drop((second, first.join().unwrap()));
    // The second client stopped: the worker waits for it once, then no more.
    queue.batch_finished(2, 0.1);
    let _single = submit(&queue, 1, 0.0);
    let start = Instant::now();
    assert_eq!(counts(&queue.next().unwrap()), [1]);
    assert!(start.elapsed() >= DELAY);
    queue.batch_finished(1, 0.1);
    let _single = submit(&queue, 1, 0.0);
    let start = Instant::now();
    queue.next().unwrap();
    assert!(start.elapsed() < DELAY / 2);
}

#[test]
fn batches_keep_the_order_and_large_requests_are_split() {
    let queue = queue(4, 64);
    let pending: Vec<_> = [3, 2, 9]
        .iter()
        .map(|count| submit(&queue, *count, *count as f32))
        .collect();
    let mut batches = Vec::new();
    for _ in 0..5 {
        let jobs = queue.next().unwrap();
        batches.push(counts(&jobs));
        for job in &jobs {
            assert_eq!(job.images().len(), job.count * 2);
        }
    }
    assert_eq!(batches, [vec![3], vec![2], vec![4], vec![4], vec![1]]);
    assert_eq!(reserved(&queue), 0);
    drop(pending);
}

#[test]
fn the_queue_is_bounded_and_slots_are_freed() {
    let queue = queue(4, 10);
    assert_eq!(queue.reserve(11).unwrap_err().cause(), "invalid");
    let first = submit(&queue, 6, 0.0);
    let preparing = queue.reserve(4).unwrap();
    let refused = queue.reserve(1).unwrap_err();
    assert_eq!(refused.cause(), "overloaded");
    assert!(queue.check_room().is_err());
    drop(preparing);
    queue.check_room().unwrap();
    // Cancelled requests free their slots.
    drop(first);
    let _second = submit(&queue, 10, 0.0);
    assert_eq!(reserved(&queue), 10);
    queue.batch_finished(4, 8.0);
    let ServeError::Overloaded { retry_after, .. } = queue.reserve(1).unwrap_err() else {
        panic!("the queue must be full");
    };
    assert_eq!(retry_after, Duration::from_secs(20));
}

#[tokio::test]
async fn late_and_cancelled_requests_are_not_computed() {
    let queue = queue(4, 10);
    let slots = queue.reserve(1).unwrap();
    let late = queue.submit(slots, vec![0.0; 2], Instant::now(), &Trace::default());
    drop(submit(&queue, 1, 0.0));
    let alive = submit(&queue, 1, 7.0);
    let mut jobs = queue.next().unwrap();
    assert_eq!(jobs.len(), 1);
    assert_eq!(jobs[0].images(), [7.0, 7.0]);
    assert_eq!(late.output().await, Err(ServeError::Deadline));
    let output = InferenceOutput {
        probabilities: vec![0.5],
        embeddings: vec![],
    };
    jobs.remove(0).finish(Ok(output.clone()));
    assert_eq!(alive.output().await, Ok(output));
    assert_eq!(reserved(&queue), 0);
}

#[test]
fn a_closed_queue_still_returns_its_jobs() {
    let queue = queue(4, 10);
    let _pending = submit(&queue, 6, 0.0);
    queue.close();
    assert_eq!(counts(&queue.next().unwrap()), [4]);
    assert_eq!(counts(&queue.next().unwrap()), [2]);
    assert!(queue.next().is_none());
}
