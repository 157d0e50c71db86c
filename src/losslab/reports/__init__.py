"""Tables and a page of what an outputs folder holds, from its journal and its pictures alone."""
