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

/// Queues images of two values, each `value`.
fn submit(queue: &Arc<Queue>, count: usize, value: f32) -> Pending {
    let places = queue.reserve(count).unwrap();
    queue.submit(
        places,
        vec![value; count * 2],
        Instant::now() + HOUR,
        &Trace::default(),
    )
}

fn counts(jobs: &[QueuedRequest]) -> Vec<usize> {
    jobs.iter().map(|job| job.count).collect()
}

fn taken(queue: &Queue) -> usize {
    queue.lock().taken
}

#[test]
fn one_client_never_waits_and_several_find_together() {
    let queue = queue(8, 64);
    let alone = submit(&queue, 1, 0.0);
    let start = Instant::now();
    assert_eq!(counts(&queue.next().unwrap()), [1]);
    assert!(start.elapsed() < DELAY / 2);
    drop(alone);
    // While it was computed another came, so that two are likely to come again.
    let other = submit(&queue, 1, 0.0);
    queue.finished(1, 0.1);
    let again = queue.clone();
    let first = thread::spawn(move || {
        thread::sleep(DELAY / 10);
        submit(&again, 1, 0.0)
    });
    assert_eq!(counts(&queue.next().unwrap()), [1, 1]);
    drop((other, first.join().unwrap()));
    // The second did not come again: waited for once, and then no more.
    queue.finished(2, 0.1);
    let _alone = submit(&queue, 1, 0.0);
    let start = Instant::now();
    assert_eq!(counts(&queue.next().unwrap()), [1]);
    assert!(start.elapsed() >= DELAY);
    queue.finished(1, 0.1);
    let _alone = submit(&queue, 1, 0.0);
    let start = Instant::now();
    queue.next().unwrap();
    assert!(start.elapsed() < DELAY / 2);
}

#[test]
fn batches_are_filled_in_order_and_large_requests_split() {
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
    assert_eq!(taken(&queue), 0);
    drop(pending);
}

#[test]
fn room_is_bounded_and_given_back() {
    let queue = queue(4, 10);
    assert_eq!(queue.reserve(11).unwrap_err().cause(), "invalid");
    let first = submit(&queue, 6, 0.0);
    let preparing = queue.reserve(4).unwrap();
    let refused = queue.reserve(1).unwrap_err();
    assert_eq!(refused.cause(), "overloaded");
    assert!(queue.check_room().is_err());
    drop(preparing);
    queue.check_room().unwrap();
    // Those who left make room for others.
    drop(first);
    let _second = submit(&queue, 10, 0.0);
    assert_eq!(taken(&queue), 10);
    queue.finished(4, 8.0);
    let ServeError::Overloaded { retry_after, .. } = queue.reserve(1).unwrap_err() else {
        panic!("there is no room");
    };
    assert_eq!(retry_after, Duration::from_secs(20));
}

#[tokio::test]
async fn the_late_and_the_gone_are_not_handed_out() {
    let queue = queue(4, 10);
    let places = queue.reserve(1).unwrap();
    let late = queue.submit(places, vec![0.0; 2], Instant::now(), &Trace::default());
    drop(submit(&queue, 1, 0.0));
    let alive = submit(&queue, 1, 7.0);
    let mut jobs = queue.next().unwrap();
    assert_eq!(jobs.len(), 1);
    assert_eq!(jobs[0].images(), [7.0, 7.0]);
    assert_eq!(late.answer().await, Err(ServeError::Deadline));
    let answer = InferenceOutput {
        probabilities: vec![0.5],
        embeddings: vec![],
    };
    jobs.remove(0).answer(Ok(answer.clone()));
    assert_eq!(alive.answer().await, Ok(answer));
    assert_eq!(taken(&queue), 0);
}

#[test]
fn a_closed_queue_is_emptied_first() {
    let queue = queue(4, 10);
    let _pending = submit(&queue, 6, 0.0);
    queue.close();
    assert_eq!(counts(&queue.next().unwrap()), [4]);
    assert_eq!(counts(&queue.next().unwrap()), [2]);
    assert!(queue.next().is_none());
}
