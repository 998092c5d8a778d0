"""Where a cohort is combined: `local`, in this process's threads."""
