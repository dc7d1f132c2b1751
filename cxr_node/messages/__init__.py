"""Reports as messages for what reads no DICOM: HL7 version 2 and FHIR, of the same facts as the SRs."""
