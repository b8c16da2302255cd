"""Where trees grow: in this process. Each executor fulfils `contracts.Executor`."""
