"""An inference engine in virtual time: batching, KV blocks and a step-time law, as a pure state machine."""
