"""Coded concepts (PS3.3 8.8): those of the standard that results name, under the keywords of PS3.16.

pydicom has a dictionary of all of them, which takes a tenth of a second of each start to read. A test compares both.
"""

from __future__ import annotations

from typing import NamedTuple


class Code(NamedTuple):
    """One coded concept."""

    value: str
    """Code Value (0008,0100)."""
    scheme_designator: str
    """Coding Scheme Designator (0008,0102)."""
    meaning: str
    """Code Meaning (0008,0104)."""
    scheme_version: str | None = None
    """Coding Scheme Version (0008,0103)."""


class DCM:
    """DICOM Controlled Terminology (PS3.16 annex D)."""

    AcquisitionEquipment = Code("109101", "DCM", "Acquisition Equipment")
    AlgorithmFamily = Code("111000", "DCM", "Algorithm Family")
    AlgorithmManufacturer = Code("122405", "DCM", "Algorithm Manufacturer")
    AlgorithmName = Code("111001", "DCM", "Algorithm Name")
    AlgorithmParameters = Code("111002", "DCM", "Algorithm Parameters")
    AlgorithmVersion = Code("111003", "DCM", "Algorithm Version")
    AllAlgorithmsSucceededWithFindings = Code("111242", "DCM", "All algorithms succeeded; with findings")
    AllAlgorithmsSucceededWithoutFindings = Code("111241", "DCM", "All algorithms succeeded; without findings")
    ArtificialIntelligence = Code("123110", "DCM", "Artificial Intelligence")
    CADProcessingAndFindingsSummary = Code("111017", "DCM", "CAD Processing and Findings Summary")
    CertaintyOfFinding = Code("111012", "DCM", "Certainty of Finding")
    Comment = Code("121106", "DCM", "Comment")
    ComputedRadiography = Code("CR", "DCM", "Computed Radiography")
    Device = Code("121007", "DCM", "Device")
    DeviceObserverManufacturer = Code("121014", "DCM", "Device Observer Manufacturer")
    DeviceObserverModelName = Code("121015", "DCM", "Device Observer Model Name")
    DeviceObserverName = Code("121013", "DCM", "Device Observer Name")
    DeviceObserverSerialNumber = Code("121016", "DCM", "Device Observer Serial Number")
    DeviceObserverUID = Code("121012", "DCM", "Device Observer UID")
    DigitalRadiography = Code("DX", "DCM", "Digital Radiography")
    Finding = Code("121071", "DCM", "Finding")
    Findings = Code("121070", "DCM", "Findings")
    ForPeerReview = Code("113008", "DCM", "For Peer Review")
    ForReferringProvider = Code("113002", "DCM", "For Referring Provider")
    ForResearch = Code("113009", "DCM", "For Research")
    GradientWeightedClassActivation = Code("130403", "DCM", "Gradient-weighted class activation")
    IllustrationOfROI = Code("121200", "DCM", "Illustration of ROI")
    ImageLibrary = Code("111028", "DCM", "Image Library")
    ImageLibraryGroup = Code("126200", "DCM", "Image Library Group")
    ImageRegion = Code("111030", "DCM", "Image Region")
    ImagingMeasurementReport = Code("126000", "DCM", "Imaging Measurement Report")
    ImagingMeasurements = Code("126010", "DCM", "Imaging Measurements")
    Impression = Code("121073", "DCM", "Impression")
    Impressions = Code("121072", "DCM", "Impressions")
    LanguageOfContentItemAndDescendants = Code("121049", "DCM", "Language of Content Item and Descendants")
    MeasurementGroup = Code("125007", "DCM", "Measurement Group")
    Modality = Code("121139", "DCM", "Modality")
    ObserverType = Code("121005", "DCM", "Observer Type")
    OfInterest = Code("113000", "DCM", "Of Interest")
    PixelDataColumns = Code("110911", "DCM", "Pixel Data Columns")
    PixelDataRows = Code("110910", "DCM", "Pixel Data Rows")
    PreviousFinding = Code("121069", "DCM", "Previous Finding")
    PreviousFindings = Code("121068", "DCM", "Previous Findings")
    ProcedureReported = Code("121058", "DCM", "Procedure reported")
    ProcessingEquipment = Code("109102", "DCM", "Processing Equipment")
    SourceImageForImageProcessingOperation = Code("121322", "DCM", "Source image for image processing operation")
    SourceOfMeasurement = Code("121112", "DCM", "Source of Measurement")
    Summary = Code("121111", "DCM", "Summary")
    TrackingIdentifier = Code("112039", "DCM", "Tracking Identifier")
    TrackingUniqueIdentifier = Code("112040", "DCM", "Tracking Unique Identifier")
    VisualExplanation = Code("130401", "DCM", "Visual explanation")


class SCT:
    """SNOMED CT."""

    Absent = Code("272519000", "SCT", "Absent")
    Present = Code("52101004", "SCT", "Present")
    SpatialAndRelationalConcept = Code("309825002", "SCT", "Spatial and Relational Concept")
    Undetermined = Code("373068000", "SCT", "Undetermined")


class LN:
    """LOINC."""

    DiagnosticImagingReport = Code("18748-4", "LN", "Diagnostic Imaging Report")
