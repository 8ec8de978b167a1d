"""From nodes to launches: lowering, and the evaluator that runs pending graphs."""
