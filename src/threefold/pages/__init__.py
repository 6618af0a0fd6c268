"""HTML pages, in English and Korean, and the verbs whose result is one."""
