//! The words for how the pipeline runs.

/// How tasks are scheduled.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Orchestration {
    /// One current task at a time.
    Sequential,
    /// As many as there are agents.
    Parallel,
    /// Like parallel, but what may clash with anything has the place to itself.
    Hybrid,
}

/// How far the pipeline acts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Rollout {
    /// Says what it would do and does nothing.
    Shadow,
    /// Acts for a slice; the base does not follow.
    Pilot,
    /// Acts for everything.
    Production,
}

/// Where agents run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Isolation {
    /// A git worktree for each agent.
    Worktree,
    /// No git: the project's folder.
    None,
}
