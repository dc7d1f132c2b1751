"""Earlier radiographs of a patient, as SCU of Query/Retrieve (PS3.4 Annex C): C-FIND, and C-GET on one association."""
