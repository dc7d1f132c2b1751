import com.pixelmed.dicom.AttributeList;
import com.pixelmed.validate.DicomSRValidator;

/** Runs PixelMed's DicomSRValidator over many files in one process: its style sheets take 4 s to compile. */
public class ValidateAll {
    public static void main(String[] paths) throws Exception {
        DicomSRValidator validator = new DicomSRValidator();
        for (String path : paths) {
            AttributeList list = new AttributeList();
            list.read(path);
            System.out.println("File: " + path);
            System.out.println(validator.validate(list));
        }
    }
}
