//! Any schedule of faults.

use super::{MS, kubelet::*};
use crate::session::{
    logs::*,
    testing::{Random, every_seed},
};

/// Lines 0 to n once each, through cuts, restarts and refusals.
fn run(seed: u64) {
    let mut random = Random::new(seed);
    let mut below = move |n: u64| random.below(n);
    let config = LogConfig {
        across_restarts: true,
        ..config()
    };
    let mut world = start(config, Kubelet::new(), seed);
    let mut written = 0;
    for _ in 0..60 {
        for _ in 0..below(4) {
            let pause = [0, 1, MS, 300 * MS, 2000 * MS][below(5) as usize];
            let padding = "x".repeat([0, 10, 150][below(3) as usize]);
            world.kubelet.write(format!("{written} {padding}"), pause);
            written += 1;
        }
        // An instance is read before the one after the next begins: older logs are gone.
        if below(15) == 0
            && world
                .open
                .is_some_and(|(i, ..)| i + 1 == world.kubelet.instances.len())
        {
            world.kubelet.clock += MS;
            world.kubelet.restart(1);
        }
        if world.open.is_some() {
            world.send(below(400) as usize, 1 + below(100) as usize);
            let (index, since, sent) = world.open.unwrap();
            let exited = world.kubelet.instances[index].exit.is_some();
            let all = world.kubelet.text(index, since).len() == sent;
            if below(4) == 0 || exited && all {
                world.end(!all || below(2) == 0);
            }
            continue;
        }
        match world.request() {
            None => world.sleep(),
            Some(_) if below(5) == 0 => world.end(true),
            Some(_) if below(6) == 0 => {
                world.head([500, 503, 429][below(3) as usize]);
                world.end(false);
            }
            Some(LogRequest::Pod) => world.answer(&LogRequest::Pod),
            Some(LogRequest::Log(query)) => match world.kubelet.open(&query) {
                None => {
                    world.head(400);
                    world.end(false);
                }
                Some((index, since, follow)) => {
                    world.head(200);
                    world.open = Some((index, since, 0));
                    if !follow {
                        world.send(usize::MAX, 33);
                        world.end(false);
                    }
                }
            },
        }
    }
    world.settle();
    let numbers: Vec<u64> = world
        .lines
        .iter()
        .map(|line| line.split(' ').next().unwrap().parse().unwrap())
        .collect();
    assert_eq!(numbers, (0..written).collect::<Vec<_>>(), "seed {seed}");
    assert_eq!(world.notices, Vec::<String>::new());
    assert_eq!(world.gaps, [], "seed {seed}");
    let known: Vec<_> = world
        .kubelet
        .instances
        .iter()
        .flat_map(|i| &i.lines)
        .collect();
    assert!(
        world.lines.iter().eq(known.iter().map(|(_, text)| text)),
        "seed {seed}"
    );
}

#[test]
fn any_schedule_of_faults_gives_each_line_once() {
    every_seed(run);
}
