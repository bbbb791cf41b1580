"""Runs: what is trained and scored, a pack at a time, and what is kept of it.

In come a backbone that passed its gate, a prepared dataset, a split and a request (packfile.py). A job (prompting.py,
probe.py, finetune.py) trains the runs that the ledger does not hold, metrics.py scores them; pack.py joins the two.
Out go a table a pack, with the request that it answers, and for each run an entry in the ledger: what it learned, and
its result. trained.py makes a torch module of such an entry (`hiddencost.load`): classifier.py, which goes to the
Hugging Face Hub by hub.py and card.py.
"""
