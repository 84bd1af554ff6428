//! The one integration binary.

mod agent_zoo;
mod cli_commands;
mod cli_demo;
mod disk_full;
mod doctor_repair;
mod faults;
mod keeper;
mod machine_agents;
mod machine_cases;
mod machine_doubt;
mod machine_estimate;
mod machine_order;
mod machine_phase;
mod machine_relined;
mod machine_schedule;
mod machine_support;
mod monitor_kill;
mod monitor_modes;
mod monitor_run;
mod monitor_world;
mod people;
mod plan_cases;
mod plan_oracle;
mod support;
mod tidy;
