"""The paper's figures, drawn again from the records in `results/`: one script a figure."""
