//! The one integration binary.

mod agent_zoo;
mod cli_commands;
mod cli_demo;
mod disk_full;
mod doctor_repair;
mod faults;
mod keeper;
mod machine_cases;
mod machine_changed;
mod machine_doubt;
mod machine_phase;
mod machine_relined;
mod machine_schedule;
mod machine_support;
mod monitor_forecast;
mod monitor_kill;
mod monitor_run;
mod monitor_world;
mod people;
mod support;
mod tidy;
