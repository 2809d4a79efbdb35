//! Faults that are no plain sweep of one command: two of them at once, kills of what cleans up, signals.

use std::thread;
use std::time::Duration;

use super::calls::Call;
use super::sweep::{Workload, points, repeat, seed};
use super::tracer::{self, Act, Plan, Traced};
use super::{store, workloads};

fn changes(call: &Call) -> bool {
    call.kind.changes()
}

fn trace(workload: &Workload, at: usize, act: Act) -> Traced {
    tracer::run(workload.command(), &Plan { at, act, which: &changes })
}

fn expect_whole(workload: &Workload, why: &str) {
    let defects = store::defects(&workload.env.store());
    assert!(defects.is_empty(), "{why}: {defects:#?}");
    workload.run(["system", "check"]).success();
}

/// What recovers from a kill is killed itself, twice, and the third try does it.
pub fn killed_again(workload: &Workload, budget: usize) {
    workload.save();
    let calls = workload.count(&changes);
    let mut killed = 0;
    for at in points(calls, budget) {
        workload.restore();
        trace(workload, at, Act::Kill);
        for step in 1..=2 {
            let second = 1 + (seed() + at * 7 * step) % calls;
            killed += usize::from(trace(workload, second, Act::Kill).hit.is_some());
            expect_whole(workload, &format!("killed at {at}, then at {second}; {}", repeat(at)));
        }
        let output = super::support::Output::of(&mut workload.command());
        assert!(output.code == 0 || workload.once, "killed at {at}: {output}\n{}", repeat(at));
        expect_whole(workload, &format!("killed at {at} and twice again; {}", repeat(at)));
        workload.collect().unwrap();
        let left =
            store::listing(&workload.env.store()).keys().filter(|name| name.starts_with("tmp/")).count();
        assert_eq!(left, 0, "killed at {at}: something is left in tmp; {}", repeat(at));
    }
    super::say(&format!(
        "FAULTS: {} and its recovery: {calls} calls, {killed} second kills\n",
        workload.name
    ));
}

/// One of two pulls of the same image is killed: the other one must not notice.
pub fn one_of_two_killed(budget: usize) {
    let workload = workloads::first_pull();
    workload.save();
    let calls = workload.count(&changes);
    for at in points(calls, budget) {
        workload.restore();
        let other = thread::scope(|scope| {
            let (one, mut two) = (workload.command(), workload.command());
            let plan = Plan { at, act: Act::Kill, which: &changes };
            let killed = scope.spawn(move || tracer::run(one, &plan));
            // Started at different times, so that each of them leads sometimes.
            thread::sleep(Duration::from_millis(u64::try_from(at * 3 % 40).unwrap()));
            let other = super::support::Output::of(&mut two);
            killed.join().unwrap();
            other
        });
        assert!(other.code == 0, "the other was killed at {at}: {other}\n{}", repeat(at));
        expect_whole(&workload, &format!("the other was killed at {at}; {}", repeat(at)));
    }
    super::say(&format!("FAULTS: one of two pulls killed: {calls} calls\n"));
}

/// Every signal that asks a program to end, at some calls of a command: old or new state, and nobody is left.
pub fn asked_to_end(workload: &Workload, budget: usize) {
    workload.save();
    let calls = workload.count(&changes);
    for signal in [libc::SIGTERM, libc::SIGINT, libc::SIGHUP] {
        for at in points(calls, budget) {
            workload.restore();
            let traced = trace(workload, at, Act::Signal(signal));
            let again = repeat(at);
            let why =
                format!("{} got signal {signal} at {at} {:?}: {traced}\n{again}", workload.name, traced.hit);
            assert!(traced.strays.is_empty() && !traced.hung, "{:?}: {why}", traced.strays);
            // Near its end a command may as well get done; then it must have.
            assert!(traced.code != 0 || !(workload.result)(workload).is_empty(), "{why}");
            expect_whole(workload, &why);
            let output = super::support::Output::of(&mut workload.command());
            assert!(output.code == 0, "{why}\n{output}");
        }
    }
    super::say(&format!("FAULTS: {} asked to end: {calls} calls\n", workload.name));
}
